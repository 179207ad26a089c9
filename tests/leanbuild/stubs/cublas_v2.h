// Names that torch's headers mention; nothing in the tests calls this library.
#pragma once
typedef struct cublasContext* cublasHandle_t;
typedef int cublasStatus_t;

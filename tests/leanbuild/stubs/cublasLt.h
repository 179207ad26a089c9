// Names that torch's headers mention; nothing in the tests calls this library.
#pragma once
typedef struct cublasLtContext* cublasLtHandle_t;

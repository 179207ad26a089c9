// Names that torch's headers mention; nothing in the tests calls this library.
#pragma once
typedef struct cusparseContext* cusparseHandle_t;
typedef int cusparseStatus_t;

// Names that torch's headers mention; nothing in the tests calls this library.
#pragma once
#include <cusolver_common.h>
typedef struct cusolverDnContext* cusolverDnHandle_t;

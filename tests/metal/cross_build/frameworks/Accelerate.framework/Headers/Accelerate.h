// What our CPU ops use of Apple's Accelerate, as its header declares it under
// ACCELERATE_NEW_LAPACK.
#pragma once

#ifndef ACCELERATE_NEW_LAPACK
#error \
    "Accelerate's old interface is deprecated, and a warning there: define ACCELERATE_NEW_LAPACK."
#endif

enum CBLAS_ORDER { CblasRowMajor = 101, CblasColMajor = 102 };
enum CBLAS_TRANSPOSE { CblasNoTrans = 111, CblasTrans = 112, CblasConjTrans = 113 };

extern "C" void cblas_sgemm(enum CBLAS_ORDER, enum CBLAS_TRANSPOSE, enum CBLAS_TRANSPOSE, int m,
                            int n, int k, float alpha, const float* a, int lda, const float* b,
                            int ldb, float beta, float* c, int ldc) asm("_cblas_sgemm$NEWLAPACK");

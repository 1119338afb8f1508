// Accesses whose extent a count, a search or a mask decides.
typedef unsigned char u8; typedef unsigned int u32; typedef unsigned long u64;
static u8 other[512], sink[512];
#define UP(name, insn, outputs, ...) u64 name(u8 *p, u64 n) { u8 *q = other; u64 found = 0; \
  __asm__ volatile(insn : outputs, "+c"(n) : __VA_ARGS__ : "memory", "cc"); return n; }
UP(fill1, "rep stosb", "+D"(p), "a"(7))
UP(fill2, "rep stosw", "+D"(p), "a"(7))
UP(fill4, "rep stosl", "+D"(p), "a"(7))
UP(fill8, "rep stosq", "+D"(p), "a"(7L))
UP(from1, "rep movsb", "+S"(p), "D"(sink))
UP(to4, "rep movsl", "+D"(p), "S"(other))
UP(load8, "rep lodsq", "+S"(p), "a"(0L))
UP(down1, "std; rep stosb; cld", "+D"(p), "a"(7))
UP(down8, "std; rep stosq; cld", "+D"(p), "a"(7L))
// The byte 9 is nowhere but where `put` puts it.
void put(u8 *p) { *(volatile u8 *)p = 9; }
void clear(u8 *p, u64 n) { for (u64 i = 0; i < n; i++) ((volatile u8 *)p)[i] = 0; }
UP(find1, "repne scasb", "+D"(p), "a"(9))
UP(findback1, "std; repne scasb; cld", "+D"(p), "a"(9))
UP(same1, "repe cmpsb", "+S"(p), "D"(other))
// xlat takes al alone.
u64 byal(u8 *p, u64 n) { __asm__ volatile("xlatb" : "+a"(n) : "b"(p) : "memory"); return n; }
#ifdef __AVX2__
#include <immintrin.h>
static __m256i spread4(u64 m) { int v[8]; for (int i = 0; i < 8; i++) v[i] = -(int)(m >> i & 1); return _mm256_loadu_si256((void *)v); }
static __m256i spread8(u64 m) { long v[4]; for (int i = 0; i < 4; i++) v[i] = -(long)(m >> i & 1); return _mm256_loadu_si256((void *)v); }
static __m128i spread1(u64 m) { u8 v[16]; for (int i = 0; i < 16; i++) v[i] = -(u8)(m >> i & 1); return _mm_loadu_si128((void *)v); }
u64 sign4load(u8 *p, u64 m) { __m256 v = _mm256_maskload_ps((float *)p, spread4(m)); return ((u64 *)&v)[0]; }
void sign4store(u8 *p, u64 m) { _mm256_maskstore_ps((float *)p, spread4(m), _mm256_set1_ps(3)); }
u64 sign8load(u8 *p, u64 m) { __m256i v = _mm256_maskload_epi64((long long *)p, spread8(m)); return ((u64 *)&v)[0]; }
void sign8store(u8 *p, u64 m) { _mm256_maskstore_pd((double *)p, spread8(m), _mm256_set1_pd(3)); }
void bytes1store(u8 *p, u64 m) { _mm_maskmoveu_si128(_mm_set1_epi8(5), spread1(m), (char *)p); }
u64 gather4(u8 *p, u64 m) {
  __m256i at = _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14);
  __m256i v = _mm256_mask_i32gather_epi32(_mm256_setzero_si256(), (int *)p, at, spread4(m), 4); return ((u64 *)&v)[0];
}
u64 gather8(u8 *p, u64 m) {
  __m256i at = _mm256_setr_epi64x(0, 16, 32, 48);
  __m256i v = _mm256_mask_i64gather_epi64(_mm256_setzero_si256(), (long long *)p, at, spread8(m), 1); return ((u64 *)&v)[0];
}
#endif
#ifdef __AVX512BW__
u64 k1load(u8 *p, u64 m) { __m512i v = _mm512_maskz_loadu_epi8(m, p); return ((u64 *)&v)[0]; }
void k1store(u8 *p, u64 m) { _mm512_mask_storeu_epi8(p, m, _mm512_set1_epi8(3)); }
u64 k2load(u8 *p, u64 m) { __m512i v = _mm512_maskz_loadu_epi16(m, p); return ((u64 *)&v)[0]; }
u64 k4load(u8 *p, u64 m) { __m512i v = _mm512_maskz_loadu_epi32(m, p); return ((u64 *)&v)[0]; }
void k4store(u8 *p, u64 m) { _mm512_mask_storeu_epi32(p, m, _mm512_set1_epi32(3)); }
u64 k4add(u8 *p, u64 m) { __m512i v = _mm512_maskz_add_epi32(m, _mm512_set1_epi32(3), _mm512_loadu_si512(p)); return ((u64 *)&v)[0]; }
void k8store(u8 *p, u64 m) { _mm256_mask_storeu_epi64(p, m, _mm256_set1_epi32(3)); }
u64 pack4load(u8 *p, u64 m) { __m512i v = _mm512_maskz_expandloadu_epi32(m, p); return ((u64 *)&v)[0]; }
void pack8store(u8 *p, u64 m) { _mm512_mask_compressstoreu_epi64(p, m, _mm512_set1_epi32(3)); }
#define MASKED(name, insn) u64 name(u8 *p, u64 m) { \
  __asm__ volatile("kmovq %1, %%k1; " insn "%{%%k1%}" : : "r"(p), "r"(m) : "memory", "xmm1", "xmm2", "k1"); return 0; }
MASKED(k4max, "vpmaxsd (%0), %%zmm1, %%zmm2")
MASKED(k1blend, "vpblendmb (%0), %%zmm1, %%zmm2")
MASKED(k8fma, "vfmadd231pd (%0), %%ymm1, %%ymm2")
MASKED(k4same, "vpaddd (%0)%{1to16%}, %%zmm1, %%zmm2")
MASKED(k4all, "vpermd (%0), %%zmm1, %%zmm2")
u64 kgather4(u8 *p, u64 m) {
  __m512i at = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  __m512i v = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), m, at, p, 4); return ((u64 *)&v)[0];
}
void kscatter8(u8 *p, u64 m) {
  __m512i at = _mm512_setr_epi64(0, 16, 32, 48, 64, 80, 96, 112);
  _mm512_mask_i64scatter_epi64(p, m, at, _mm512_set1_epi64(7), 1);
}
#endif

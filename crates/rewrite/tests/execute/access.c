// One access each, of every width; `i` forms take the offset as an index.
typedef unsigned short u16; typedef unsigned int u32; typedef unsigned long u64;
typedef long v16 __attribute__((vector_size(16), aligned(1), may_alias));
typedef long v32 __attribute__((vector_size(32), aligned(1), may_alias));
#define FORM(width, type) \
  typedef type __attribute__((aligned(1), may_alias)) t##width; \
  u64 load##width(t##width *p) { return (u64)*(volatile t##width *)p; } \
  void store##width(t##width *p, u64 v) { *(volatile t##width *)p = (type)v; } \
  u64 loadi##width(char *p, u64 v, long i) { return (u64)*(volatile t##width *)(p + i); } \
  void storei##width(char *p, u64 v, long i) { *(volatile t##width *)(p + i) = (type)v; }
FORM(1, unsigned char) FORM(2, u16) FORM(4, u32) FORM(8, u64)
typedef long double t10 __attribute__((aligned(1), may_alias));
u64 load10(t10 *p) { return *(volatile t10 *)p != 0; }
void store10(t10 *p) { *(volatile t10 *)p = 1; }
void store108(char *p) { __asm__ volatile("fnsave %0" : "=m"(*(char (*)[108])p)); }
u64 load16(v16 *p) { v16 v = *(volatile v16 *)p; return v[0]; }
void store16(v16 *p, u64 v) { v16 x = {v, v}; *(volatile v16 *)p = x; }
u64 load32(v32 *p) { v32 v = *(volatile v32 *)p; return v[0]; }
void store32(v32 *p, u64 v) { v32 x = {v, v, v, v}; *(volatile v32 *)p = x; }
// Several accesses from one address: a group with one filter.
u64 fields(char *p) {
  return *(t4 *)p + *(t8 *)(p + 4) + *(t2 *)(p + 13) + *(t1 *)(p + 17) + *(t8 *)(p + 24);
}

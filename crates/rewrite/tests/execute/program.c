// Functions whose results depend on every register and flag a compiler uses: arithmetic with carries, loops, jump
// tables, computed gotos, recursion, calls through pointers, structures, strings, bit strings, string instructions.
typedef unsigned long u64; typedef unsigned int u32; typedef unsigned char u8;
static u64 heap[4096]; static u64 top;
static void *get(u64 n) { void *p = &heap[top]; top = (top + n + 1) & 2047; return p; }
void reset(u64 a) { for (int i = 0; i < 4096; i++) heap[i] = i * a; top = 0; }
struct node { struct node *left, *right; u64 key; u32 count; u8 tag; };
static struct node *insert(struct node *n, u64 key) {
  if (!n) { n = get(5); n->left = n->right = 0; n->key = key; n->count = 1; n->tag = (u8)key; return n; }
  if (key < n->key) n->left = insert(n->left, key);
  else if (key > n->key) n->right = insert(n->right, key);
  else n->count++, n->tag ^= 3;
  return n;
}
static u64 sum(struct node *n) { return n ? n->key * n->count + n->tag + 3 * sum(n->left) + 5 * sum(n->right) : 1; }
u64 test_tree(u64 a, u64 b) {
  struct node *root = 0; top = 0;
  for (int i = 0; i < 40; i++) { a = a * 6364136223846793005ul + b; root = insert(root, a >> 58); }
  return sum(root);
}
u64 test_switch(u64 a, u64 b) {
  u64 r = 1;
  for (int i = 0; i < 64; i++) {
    a = a * 6364136223846793005ul + 1442695040888963407ul;
    switch (a >> 60) {
      case 0: r += b; break; case 1: r ^= a; break; case 2: r *= 3; break; case 3: r -= 7; break;
      case 4: r <<= b & 7; break; case 5: r >>= a & 3; break; case 6: r = ~r; break; case 7: r |= 9; break;
      case 8: r = r * r; break; case 9: r += heap[r & 4095]; break; case 10: heap[a & 4095] = r; break;
      default: r += i;
    }
  }
  return r;
}
u64 test_goto(u64 a, u64 b) {
  static void *const labels[] = {&&add, &&sub, &&mul, &&end, &&load};
  u8 code[24]; u64 r = a, i = 0;
  for (int k = 0; k < 23; k++) { a = a * 25214903917 + 11; u8 op = (a >> 20) & 3; code[k] = op == 3 ? 4 : op; }
  code[23] = 3;
  goto *labels[code[i++]];
add: r += b; goto *labels[code[i++]];
sub: r -= i; goto *labels[code[i++]];
mul: r *= 31; goto *labels[code[i++]];
load: r ^= heap[r & 4095]; goto *labels[code[i++]];
end: return r;
}
u64 test_wide(u64 a, u64 b) {
  u64 *x = get(8), *y = get(8), *z = get(9); u64 carry = 0;
  for (int i = 0; i < 8; i++) x[i] = a = a * 25214903917 + 11, y[i] = ~a * (b | 1);
  for (int i = 0; i < 8; i++) {
    u64 s = x[i] + carry; u64 c = s < carry; s += y[i]; c += s < y[i]; z[i] = s; carry = c;
  }
  __int128 m = 0;
  for (int i = 0; i < 8; i++) m += (__int128)x[i] * z[i];
  return (u64)m ^ (u64)(m >> 64) ^ carry;
}
static int compare(const void *a, const void *b) {
  u64 x = *(const u64 *)a, y = *(const u64 *)b; return (x > y) - (x < y);
}
static void sort(u64 *v, long n, int (*less)(const void *, const void *)) {
  for (long i = 1; i < n; i++) { u64 k = v[i]; long j = i; while (j && less(&k, &v[j - 1]) < 0) { v[j] = v[j - 1]; j--; } v[j] = k; }
}
u64 test_sort(u64 a, u64 b) {
  u64 *v = get(32), r = 0;
  for (int i = 0; i < 32; i++) v[i] = a = a * 6364136223846793005ul + b;
  sort(v, 32, compare);
  for (int i = 0; i < 32; i++) r = r * 31 + v[i];
  return r;
}
u64 test_text(u64 a, u64 b) {
  u8 *s = get(20), *t = get(20); u64 h = 5381, n = 0;
  for (int i = 0; i < 100; i++) s[i] = "abcdefgh \t\n"[(a >> (i & 31)) % 11];
  for (int i = 0; i < 100; i++) if (s[i] > ' ') t[n++] = s[i] & 0xdf; else if (n && t[n - 1] != '_') t[n++] = '_';
  for (u64 i = 0; i < n; i++) h = h * 33 ^ t[i];
  return h + n;
}
u64 test_doubles(u64 a, u64 b) {
  double *m = (double *)get(64), *v = (double *)get(8), r[8]; double s = 0;
  for (int i = 0; i < 64; i++) m[i] = (double)((a + i * b) % 17) - 8;
  for (int i = 0; i < 8; i++) v[i] = i + 0.5;
  for (int i = 0; i < 8; i++) { r[i] = 0; for (int j = 0; j < 8; j++) r[i] += m[i * 8 + j] * v[j]; }
  for (int i = 0; i < 8; i++) s = s * 0.5 + r[i];
  return (u64)(long)(s * 1000);
}
u64 test_strings(u64 a, u64 b) {
  u8 *s = get(16), *t = get(16); u64 n = a % 100, r = 0; void *d = s, *e = t, *f = s;
  __asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(b) : "memory"); n = 100 - a % 100; 
  __asm__ volatile("rep movsb" : "+D"(e), "+S"(f), "+c"(n) : : "memory");
  e = t + 99; f = s + 99; n = 50;
  __asm__ volatile("std; rep movsb; cld" : "+D"(e), "+S"(f), "+c"(n) : : "memory");
  for (int i = 0; i < 100; i++) r = r * 7 + t[i] * (i < 100 - (int)(a % 100) || i > 49);
  return r + (u64)((u8 *)e - t);
}
u64 test_bits(u64 a, u64 b) {
  u64 *m = get(8); u64 r = 0;
  for (int i = 0; i < 8; i++) m[i] = 0;
  for (int i = 0; i < 50; i++) {
    u64 bit = (a * i * 37 + b) & 511; u8 was;
    __asm__ volatile("btsq %2, %1; setc %0" : "=q"(was), "+m"(*(u64(*)[8])m) : "r"(bit) : "cc");
    r = r * 2 + was;
    __asm__ volatile("btl %k2, %1; adcq $3, %0" : "+r"(r) : "m"(*(u64(*)[8])m), "r"(bit ^ 5) : "cc");
  }
  for (int i = 0; i < 8; i++) r = r * 31 ^ m[i];
  return r;
}
u64 test_flags(u64 a, u64 b) {
  u64 *p = get(4), r = a; p[0] = b; p[1] = a ^ b; p[2] = 3; p[3] = 1;
  for (int i = 0; i < 20; i++) {
    u64 x, n = 3;
    __asm__ volatile(
      "addq %3, %0\n mov (%2), %1\n adcq %1, %0\n mov 8(%2), %1\n adcq 16(%2), %0\n sbbq %1, %0\n"
      "mov %0, 24(%2)\n jc 1f\n xorq 8(%2), %0\n 1: lea -1(%0), %0\n incq (%2)\n"
      : "+r"(r), "=&r"(x) : "r"(p), "r"(b) : "cc", "memory");
    __asm__ volatile("1: addq %2, %0\n movq (%3), %%rdx\n loop 1b\n jrcxz 2f\n notq %0\n 2:\n" : "+r"(r), "+c"(n) : "r"(x), "r"(p) : "rdx", "cc", "memory");
    __asm__ volatile("cmpq %1, %0\n movb %%cl, %%cl\n shlq %%cl, %2\n movq (%3), %2\n cmovc %2, %0\n lock xaddq %0, 8(%3)\n" : "+r"(r), "+r"(b), "+r"(n) : "r"(p), "c"(0) : "cc", "memory");
  }
  return r + p[3];
}
u64 test_lock(u64 a, u64 b) {
  u32 *p = get(2); *p = 5; u64 r = 0;
  for (int i = 0; i < 10; i++) {
    u32 old = *p;
    __asm__ volatile("testl %3, %3\n je 0f\n lock\n 0: cmpxchgl %2, (%1)\n" : "+a"(old) : "r"(p), "r"((u32)(a + i)), "r"((u32)(b + i) & 1) : "cc", "memory");
    r = r * 5 + old + *p;
  }
  return r;
}
__attribute__((noinline)) static u64 tail(u64 a, u64 b, u64 c) { return a * 3 + b + heap[c & 4095]; }
u64 test_tail(u64 a, u64 b) { return b & 1 ? tail(a + heap[a & 255], b, a ^ b) : ((u64(*)(u64, u64, u64))((b & 2) ? tail : (void *)tail))(a, 2 * b, 7); }

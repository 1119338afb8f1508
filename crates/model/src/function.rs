//! The functions of C and C++ that findings name: allocator functions and the checked string functions.

macro_rules! functions {
    ($($name:ident = $code:literal $text:literal,)*) => {
        /// A function that the target called. The variants are named as the functions are.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[expect(missing_docs, reason = "each variant is the function of that name")]
        pub enum Function {
            $($name = $code,)*
        }

        impl Function {
            /// Every function.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name as C or C++ source shows it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Whether it is a client request, which is no call.
            #[must_use]
            pub const fn is_request(self) -> bool {
                self as u8 >= 150
            }

            /// The function with this code, if there is one.
            #[must_use]
            #[inline]
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }
        }
    };
}

functions! {
    Malloc = 1 "malloc",
    Calloc = 2 "calloc",
    Realloc = 3 "realloc",
    Reallocarray = 4 "reallocarray",
    Free = 5 "free",
    Cfree = 6 "cfree",
    Memalign = 7 "memalign",
    AlignedAlloc = 8 "aligned_alloc",
    PosixMemalign = 9 "posix_memalign",
    Valloc = 10 "valloc",
    Pvalloc = 11 "pvalloc",
    MallocUsableSize = 12 "malloc_usable_size",
    New = 20 "operator new",
    NewNothrow = 21 "operator new(nothrow)",
    NewAligned = 22 "operator new(aligned)",
    NewAlignedNothrow = 23 "operator new(aligned, nothrow)",
    NewArray = 24 "operator new[]",
    NewArrayNothrow = 25 "operator new[](nothrow)",
    NewArrayAligned = 26 "operator new[](aligned)",
    NewArrayAlignedNothrow = 27 "operator new[](aligned, nothrow)",
    Delete = 30 "operator delete",
    DeleteSized = 31 "operator delete(sized)",
    DeleteNothrow = 32 "operator delete(nothrow)",
    DeleteAligned = 33 "operator delete(aligned)",
    DeleteSizedAligned = 34 "operator delete(sized, aligned)",
    DeleteAlignedNothrow = 35 "operator delete(aligned, nothrow)",
    DeleteArray = 36 "operator delete[]",
    DeleteArraySized = 37 "operator delete[](sized)",
    DeleteArrayNothrow = 38 "operator delete[](nothrow)",
    DeleteArrayAligned = 39 "operator delete[](aligned)",
    DeleteArraySizedAligned = 40 "operator delete[](sized, aligned)",
    DeleteArrayAlignedNothrow = 41 "operator delete[](aligned, nothrow)",
    Memcpy = 60 "memcpy",
    Memmove = 61 "memmove",
    Mempcpy = 62 "mempcpy",
    Memccpy = 63 "memccpy",
    Memset = 64 "memset",
    Bzero = 65 "bzero",
    Memcmp = 66 "memcmp",
    Bcmp = 67 "bcmp",
    Memchr = 68 "memchr",
    Memrchr = 69 "memrchr",
    Rawmemchr = 70 "rawmemchr",
    Memmem = 71 "memmem",
    Bcopy = 72 "bcopy",
    Strlen = 80 "strlen",
    Strnlen = 81 "strnlen",
    Strcpy = 82 "strcpy",
    Strncpy = 83 "strncpy",
    Stpcpy = 84 "stpcpy",
    Stpncpy = 85 "stpncpy",
    Strcat = 86 "strcat",
    Strncat = 87 "strncat",
    Strcmp = 88 "strcmp",
    Strncmp = 89 "strncmp",
    Strcasecmp = 90 "strcasecmp",
    Strncasecmp = 91 "strncasecmp",
    Strchr = 92 "strchr",
    Strrchr = 93 "strrchr",
    Strchrnul = 94 "strchrnul",
    Strstr = 95 "strstr",
    Strcasestr = 96 "strcasestr",
    Strspn = 97 "strspn",
    Strcspn = 98 "strcspn",
    Strpbrk = 99 "strpbrk",
    Strdup = 100 "strdup",
    Strndup = 101 "strndup",
    Wcslen = 120 "wcslen",
    Wcsnlen = 121 "wcsnlen",
    Wcscpy = 122 "wcscpy",
    Wcsncpy = 123 "wcsncpy",
    Wcscat = 124 "wcscat",
    Wcsncat = 125 "wcsncat",
    Wcscmp = 126 "wcscmp",
    Wcsncmp = 127 "wcsncmp",
    Wcschr = 128 "wcschr",
    Wcsrchr = 129 "wcsrchr",
    Wmemset = 130 "wmemset",
    Wmemchr = 131 "wmemchr",
    Wmemcmp = 132 "wmemcmp",
    Wmemcpy = 133 "wmemcpy",
    Wmemmove = 134 "wmemmove",
    Wmempcpy = 135 "wmempcpy",
    Wcpcpy = 136 "wcpcpy",
    Wcpncpy = 137 "wcpncpy",
    MallocLike = 150 "VALGRIND_MALLOCLIKE_BLOCK",
    FreeLike = 151 "VALGRIND_FREELIKE_BLOCK",
    ResizeInPlace = 152 "VALGRIND_RESIZEINPLACE_BLOCK",
    MempoolAlloc = 153 "VALGRIND_MEMPOOL_ALLOC",
    MempoolFree = 154 "VALGRIND_MEMPOOL_FREE",
    MempoolTrim = 155 "VALGRIND_MEMPOOL_TRIM",
    MempoolChange = 156 "VALGRIND_MEMPOOL_CHANGE",
    MoveMempool = 157 "VALGRIND_MOVE_MEMPOOL",
    DestroyMempool = 158 "VALGRIND_DESTROY_MEMPOOL",
    CreateBlock = 159 "VALGRIND_CREATE_BLOCK",
    CheckAddressable = 160 "VALGRIND_CHECK_MEM_IS_ADDRESSABLE",
    CheckDefined = 161 "VALGRIND_CHECK_MEM_IS_DEFINED",
}

impl Function {
    /// Whether it is a form of C++'s `operator new` or `operator delete`.
    #[must_use]
    pub const fn is_operator(self) -> bool {
        matches!(self.linkage_name().as_bytes(), [b'_', b'Z', b'n' | b'd', ..])
    }

    /// The name that the linker knows it by: mangled (Itanium C++ ABI, 5.1.3) for the operators.
    #[must_use]
    pub const fn linkage_name(self) -> &'static str {
        use Function as F;
        match self {
            F::New => "_Znwm",
            F::NewNothrow => "_ZnwmRKSt9nothrow_t",
            F::NewAligned => "_ZnwmSt11align_val_t",
            F::NewAlignedNothrow => "_ZnwmSt11align_val_tRKSt9nothrow_t",
            F::NewArray => "_Znam",
            F::NewArrayNothrow => "_ZnamRKSt9nothrow_t",
            F::NewArrayAligned => "_ZnamSt11align_val_t",
            F::NewArrayAlignedNothrow => "_ZnamSt11align_val_tRKSt9nothrow_t",
            F::Delete => "_ZdlPv",
            F::DeleteSized => "_ZdlPvm",
            F::DeleteNothrow => "_ZdlPvRKSt9nothrow_t",
            F::DeleteAligned => "_ZdlPvSt11align_val_t",
            F::DeleteSizedAligned => "_ZdlPvmSt11align_val_t",
            F::DeleteAlignedNothrow => "_ZdlPvSt11align_val_tRKSt9nothrow_t",
            F::DeleteArray => "_ZdaPv",
            F::DeleteArraySized => "_ZdaPvm",
            F::DeleteArrayNothrow => "_ZdaPvRKSt9nothrow_t",
            F::DeleteArrayAligned => "_ZdaPvSt11align_val_t",
            F::DeleteArraySizedAligned => "_ZdaPvmSt11align_val_t",
            F::DeleteArrayAlignedNothrow => "_ZdaPvSt11align_val_tRKSt9nothrow_t",
            other => other.name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_lead_back_to_their_function() {
        for &function in Function::ALL {
            assert_eq!(Function::from_code(function as u8), Some(function));
        }
        assert_eq!(Function::from_code(0), None);
    }
}

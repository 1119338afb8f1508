//! What each kind of finding means, for `--explain`.

use memcheck_model::{ErrorKind, LeakKind};

/// The explanation of a finding's id, if there is such a kind.
#[must_use]
pub fn explain(id: &str) -> Option<&'static str> {
    if let Some(kind) = LeakKind::ALL.into_iter().find(|kind| kind.id() == id) {
        return Some(leak(kind));
    }
    ErrorKind::from_id(id).map(error)
}

fn leak(kind: LeakKind) -> &'static str {
    match kind {
        LeakKind::Definite => {
            "definite: a block that was allocated and that nothing points to any more.\n\n\
             The program cannot free it, because it has lost its address: the last pointer was overwritten, or went \
             out of scope. Counts as an error.\n\n\
             \x20   char *p = malloc(10);\n\
             \x20   p = malloc(20);          /* the first block is lost */\n"
        }
        LeakKind::Indirect => {
            "indirect: a block to which only lost blocks point.\n\n\
             Nodes of a lost list or tree are lost with its head; fix the head's leak and these go away.\n\n\
             \x20   struct node *head = new_node(new_node(NULL));\n\
             \x20   head = NULL;             /* the first node is lost, the second indirectly */\n"
        }
        LeakKind::Possible => {
            "possible: a block to whose start nothing points, but into whose middle something does.\n\n\
             Either the program computes the start from it, or the pointer is there by chance and the block is lost. \
             Counts as an error.\n\n\
             \x20   char *p = malloc(10);\n\
             \x20   p++;                     /* no pointer to the start remains */\n"
        }
        LeakKind::Reachable => {
            "reachable: a block that was never freed, to which the program still points at its end.\n\n\
             No error by itself: the system takes the memory back. Shown with --show-leak-kinds=all.\n\n\
             \x20   static char *cache;\n\
             \x20   int main(void) { cache = malloc(10); return 0; }\n"
        }
    }
}

fn error(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::HeapBufferOverflow => {
            "heap-buffer-overflow: an access before the start or past the end of a block.\n\n\
             \x20   int *a = malloc(10 * sizeof *a);\n\
             \x20   a[10] = 0;               /* the last element is a[9] */\n\n\
             When the access itself was not watched, the bytes around the block show it later: when the block is \
             freed, resized, or the program ends.\n"
        }
        ErrorKind::HeapUseAfterFree => {
            "heap-use-after-free: an access to a block after it was freed.\n\n\
             \x20   free(p);\n\
             \x20   p->next = NULL;          /* the block is not p's any more */\n"
        }
        ErrorKind::WildAccess => {
            "wild-access: an access to an address where there is no memory.\n\n\
             \x20   int *p;                  /* never set */\n\
             \x20   *p = 1;\n"
        }
        ErrorKind::NullDereference => {
            "null-dereference: an access through a null pointer, perhaps to a member at some offset.\n\n\
             \x20   FILE *f = fopen(name, \"r\");\n\
             \x20   fgetc(f);                /* f is NULL when there is no such file */\n"
        }
        ErrorKind::FatalSignal => {
            "fatal-signal: a signal ended the program: SIGABRT (abort, a failed assertion), SIGFPE (division by \
             zero), SIGILL, SIGBUS, or SIGSEGV on memory that exists but forbids the access; also a stack \
             overflow.\n\n\
             \x20   char *s = \"text\";\n\
             \x20   s[0] = 'T';              /* string constants are read-only */\n"
        }
        ErrorKind::DoubleFree => {
            "double-free: a block freed that was freed already.\n\n\
             \x20   free(p);\n\
             \x20   free(p);\n"
        }
        ErrorKind::BadFree => {
            "bad-free: free of an address that no allocator function returned.\n\n\
             \x20   int x;\n\
             \x20   free(&x);                /* a variable */\n\
             \x20   free(p + 8);             /* the middle of a block */\n"
        }
        ErrorKind::BadRealloc => {
            "bad-realloc: realloc of an address that is no live block.\n\n\
             \x20   free(p);\n\
             \x20   p = realloc(p, 100);\n"
        }
        ErrorKind::AllocDeallocMismatch => {
            "alloc-dealloc-mismatch: a block given back by the wrong function, or with the wrong size or \
             alignment.\n\n\
             \x20   char *s = new char[10];\n\
             \x20   free(s);                 /* delete[] s */\n"
        }
        ErrorKind::ParamOverlap => {
            "param-overlap: source and destination overlap where the function forbids it.\n\n\
             \x20   memcpy(a + 1, a, 10);    /* memmove allows it */\n"
        }
        ErrorKind::BadSize => {
            "bad-size: an allocator function called with a negative or overflowing size.\n\n\
             \x20   malloc(-5);\n\
             \x20   calloc(SIZE_MAX, 2);\n"
        }
        ErrorKind::BadAlignment => {
            "bad-alignment: an alignment that the function does not allow.\n\n\
             \x20   posix_memalign(&p, 3, 100);\n"
        }
        ErrorKind::ReallocZero => {
            "realloc-zero: realloc to size 0, whose meaning the C standard leaves open. A note, no error.\n\n\
             \x20   p = realloc(p, 0);       /* say free(p) */\n"
        }
        ErrorKind::SyscallParam => {
            "syscall-param: a system call told to read or write memory outside a block, or in a freed one.\n\n\
             \x20   char *b = malloc(10);\n\
             \x20   read(fd, b, 20);\n"
        }
        ErrorKind::UseOfUninitialised => {
            "use-of-uninitialised: a decision made on a value that was never set.\n"
        }
        ErrorKind::StackBufferOverflow => {
            "stack-buffer-overflow: an access past the end of a local variable.\n"
        }
        ErrorKind::GlobalBufferOverflow => {
            "global-buffer-overflow: an access past the end of a global variable.\n"
        }
        ErrorKind::FdLeak => "fd-leak: a descriptor that is still open when the program ends.\n",
        ErrorKind::FdDoubleClose => "fd-double-close: a descriptor closed twice.\n",
        ErrorKind::FdUseAfterClose => "fd-use-after-close: a descriptor used after it was closed.\n",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_explained_under_its_own_name() {
        let kinds = ErrorKind::ALL.iter().map(|kind| kind.id()).chain(LeakKind::ALL.map(LeakKind::id));
        for id in kinds {
            assert!(explain(id).unwrap().starts_with(&format!("{id}: ")), "{id}");
        }
        assert_eq!(explain("no-such-kind"), None);
    }
}

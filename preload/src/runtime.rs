//! What the compiler expects of its surroundings: memory functions, a panic handler, a personality.
//!
//! The memory functions are hidden symbols of our own. libc's would do, but the engine diverts those, and the
//! shim must not run through its own instrumentation.

#[cfg(not(test))]
use core::{arch::global_asm, panic::PanicInfo};

// `rep movsb`/`rep stosb` with ERMS or FSRM reach the cache's bandwidth from some hundred bytes on (Intel
// Optimization Reference Manual, 3.7.6); below that, eight bytes at a time is quicker.
#[cfg(not(test))]
global_asm!(
    ".macro hidden_function name",
    ".globl \\name",
    ".hidden \\name",
    ".type \\name,@function",
    "\\name:",
    ".endm",
    ".text",
    ".p2align 4",
    "hidden_function memcpy",
    "mov rax, rdi",
    "mov rcx, rdx",
    "cmp rcx, 256",
    "jae 3f",
    "2: cmp rcx, 8",
    "jb 3f",
    "mov rdx, [rsi]",
    "mov [rdi], rdx",
    "add rsi, 8",
    "add rdi, 8",
    "sub rcx, 8",
    "jmp 2b",
    "3: rep movsb",
    "ret",
    ".p2align 4",
    "hidden_function memmove",
    "mov rcx, rdi",
    "sub rcx, rsi",
    "cmp rcx, rdx",
    "jae memcpy", // the destination does not start inside the source: forward is right
    "mov rax, rdi",
    "mov rcx, rdx",
    "lea rdi, [rdi + rdx - 1]",
    "lea rsi, [rsi + rdx - 1]",
    "std",
    "rep movsb",
    "cld",
    "ret",
    ".p2align 4",
    "hidden_function memset",
    "mov r8, rdi",
    "mov rcx, rdx",
    "movzx eax, sil",
    "cmp rcx, 256",
    "jae 3f",
    "mov r9, 0x0101010101010101",
    "imul rax, r9",
    "2: cmp rcx, 8",
    "jb 3f",
    "mov [rdi], rax",
    "add rdi, 8",
    "sub rcx, 8",
    "jmp 2b",
    "3: rep stosb",
    "mov rax, r8",
    "ret",
    ".p2align 4",
    "hidden_function bcmp",
    "hidden_function memcmp",
    "xor ecx, ecx",
    "2: cmp rcx, rdx",
    "je 3f",
    "movzx eax, byte ptr [rdi + rcx]",
    "movzx r8d, byte ptr [rsi + rcx]",
    "inc rcx",
    "sub eax, r8d",
    "je 2b",
    "ret",
    "3: xor eax, eax",
    "ret",
    ".p2align 4",
    "hidden_function strlen",
    "xor eax, eax",
    "2: cmp byte ptr [rdi + rax], 0",
    "je 3f",
    "inc rax",
    "jmp 2b",
    "3: ret",
    // Named by the precompiled core library; never reached, because a panic aborts.
    "hidden_function rust_eh_personality",
    "hidden_function _Unwind_Resume",
    "ud2",
);

/// A panic in the shim is a defect of ours: there is nobody to tell but the launcher, which sees the signal.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    crate::sys::abort()
}

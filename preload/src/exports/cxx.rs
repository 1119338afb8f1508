//! C++'s allocation functions, every form of `new` and `delete` (C++20, 17.6.3; names as the Itanium ABI mangles
//! them).
//!
//! A throwing form that finds no memory hands over to libstdc++'s own `operator new`, with a size that no heap
//! has: that calls the new-handler for as long as there is one, and then throws `std::bad_alloc`, from a frame
//! that looks as if it was called by the target. (A handler that frees memory and hopes for another try is thus
//! called until it gives up; without libstdc++, whose program cannot catch anything, the process ends.)

#![cfg_attr(test, expect(non_snake_case, reason = "the names are those of the Itanium C++ ABI"))]

use core::arch::naked_asm;

use memcheck_model::{Addr, Function};

use super::{align_shift, call, native, report_alignment};
use crate::{
    heap::{self, Content, DeleteTerms},
    own_allocators, sys, with_caller,
};

/// How many forms there are.
const OPERATORS: usize = 20;
/// Larger than any region of the heap, and not negative.
const IMPOSSIBLE_BYTES: u64 = 1 << 46;

/// Exports throwing forms: `$body(size, align, entry_sp, bp)`; the forms without alignment ignore what stands
/// in its register.
macro_rules! throwing {
    ($($name:ident => $body:path;)*) => {$(
        #[doc = concat!("`", stringify!($name), "`: tries `", stringify!($body), "`, then has libstdc++ throw.")]
        ///
        /// # Safety
        /// To be called as C++ declares it.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name() {
            naked_asm!(
                "mov rdx, rsp",
                "mov rcx, rbp",
                "sub rsp, 8",
                "call {body}",
                "add rsp, 8",
                "test rax, rax",
                "je 2f",
                "ret",
                "2: sub rsp, 8",
                "call {find}",
                "add rsp, 8",
                "mov rdi, {impossible}",
                "jmp rax",
                body = sym $body,
                find = sym operator_new_or_end,
                impossible = const IMPOSSIBLE_BYTES,
            )
        }
    )*};
}

throwing! {
    _Znwm => new;
    _Znam => new_array;
    _ZnwmSt11align_val_t => new_aligned;
    _ZnamSt11align_val_t => new_array_aligned;
}

with_caller! {
    _ZnwmRKSt9nothrow_t => new_nothrow, "rdx", "rcx";
    _ZnamRKSt9nothrow_t => new_array_nothrow, "rdx", "rcx";
    _ZnwmSt11align_val_tRKSt9nothrow_t => new_aligned_nothrow, "rdx", "rcx";
    _ZnamSt11align_val_tRKSt9nothrow_t => new_array_aligned_nothrow, "rdx", "rcx";
    _ZdlPv => delete, "rsi", "rdx";
    _ZdaPv => delete_array, "rsi", "rdx";
    _ZdlPvRKSt9nothrow_t => delete_nothrow, "rsi", "rdx";
    _ZdaPvRKSt9nothrow_t => delete_array_nothrow, "rsi", "rdx";
    _ZdlPvm => delete_sized, "rdx", "rcx";
    _ZdaPvm => delete_array_sized, "rdx", "rcx";
    _ZdlPvSt11align_val_t => delete_aligned, "rdx", "rcx";
    _ZdaPvSt11align_val_t => delete_array_aligned, "rdx", "rcx";
    _ZdlPvSt11align_val_tRKSt9nothrow_t => delete_aligned_nothrow, "rdx", "rcx";
    _ZdaPvSt11align_val_tRKSt9nothrow_t => delete_array_aligned_nothrow, "rdx", "rcx";
    _ZdlPvmSt11align_val_t => delete_sized_aligned, "rcx", "r8";
    _ZdaPvmSt11align_val_t => delete_array_sized_aligned, "rcx", "r8";
}

/// Every form of `new` and `delete` with its address.
pub fn allocator() -> [(&'static [u8], u64); OPERATORS] {
    macro_rules! named {
        ($($name:ident)*) => {
            [$((stringify!($name).as_bytes(), $name as *const () as u64)),*]
        };
    }
    named! {
        _Znwm _Znam _ZnwmSt11align_val_t _ZnamSt11align_val_t
        _ZnwmRKSt9nothrow_t _ZnamRKSt9nothrow_t
        _ZnwmSt11align_val_tRKSt9nothrow_t _ZnamSt11align_val_tRKSt9nothrow_t
        _ZdlPv _ZdaPv _ZdlPvRKSt9nothrow_t _ZdaPvRKSt9nothrow_t _ZdlPvm _ZdaPvm
        _ZdlPvSt11align_val_t _ZdaPvSt11align_val_t
        _ZdlPvSt11align_val_tRKSt9nothrow_t _ZdaPvSt11align_val_tRKSt9nothrow_t
        _ZdlPvmSt11align_val_t _ZdaPvmSt11align_val_t
    }
}

extern "C" fn operator_new_or_end() -> u64 {
    match native::find_operator_new() {
        0 => sys::abort(),
        address => address,
    }
}

fn make(call: &heap::Call, size: u64, align: u64) -> u64 {
    if let Some(block) = own_allocators::allocate_in_passed(size, align) {
        return block;
    }
    let Some(heap) = heap::get() else { return native::memalign(align.max(16), size.max(1)) };
    if align != 0 && !align.is_power_of_two() {
        report_alignment(call, align);
        return 0;
    }
    // The alignment is kept even where every block has it: delete must name it again.
    let shift = if align == 0 { 0 } else { align.trailing_zeros() };
    debug_assert!(align == 0 || align_shift(align) <= shift);
    heap::allocate(heap, call, size, shift, Content::Any).map_or(0, |addr| addr.0)
}

macro_rules! news {
    ($($body:ident($align:pat, $said:expr) = $function:ident;)*) => {$(
        extern "C" fn $body(size: u64, $align: u64, entry_sp: u64, bp: u64) -> u64 {
            make(&call(Function::$function, entry_sp, bp), size, $said)
        }
    )*};
}

news! {
    new(_, 0) = New;
    new_array(_, 0) = NewArray;
    new_aligned(align, align) = NewAligned;
    new_array_aligned(align, align) = NewArrayAligned;
    new_nothrow(_, 0) = NewNothrow;
    new_array_nothrow(_, 0) = NewArrayNothrow;
    new_aligned_nothrow(align, align) = NewAlignedNothrow;
    new_array_aligned_nothrow(align, align) = NewArrayAlignedNothrow;
}

fn give_back(call: &heap::Call, block: u64, said: DeleteTerms) {
    if block == 0 || own_allocators::free_in_passed(block) {
        return;
    }
    match heap::get() {
        Some(heap) => heap::deallocate(heap, call, Addr(block), said),
        None => native::free(block),
    }
}

macro_rules! deletes {
    ($($body:ident ( $($argument:ident),* ) = $function:ident $(, $field:ident)*;)*) => {$(
        extern "C" fn $body(block: u64, $($argument: u64,)* entry_sp: u64, bp: u64) {
            let said = DeleteTerms::default()$(.$field($field))*;
            give_back(&call(Function::$function, entry_sp, bp), block, said);
        }
    )*};
}

deletes! {
    delete() = Delete;
    delete_array() = DeleteArray;
    delete_nothrow() = DeleteNothrow;
    delete_array_nothrow() = DeleteArrayNothrow;
    delete_sized(size) = DeleteSized, size;
    delete_array_sized(size) = DeleteArraySized, size;
    delete_aligned(align) = DeleteAligned, align;
    delete_array_aligned(align) = DeleteArrayAligned, align;
    delete_aligned_nothrow(align) = DeleteAlignedNothrow, align;
    delete_array_aligned_nothrow(align) = DeleteArrayAlignedNothrow, align;
    delete_sized_aligned(size, align) = DeleteSizedAligned, size, align;
    delete_array_sized_aligned(size, align) = DeleteArraySizedAligned, size, align;
}

//! What depends on the processor: the system call instruction, saved contexts and the switch of stacks.
//!
//! Nothing outside this folder may assume a processor.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::{
    Context, RSEQ_SIGNATURE, call_on_stack, clone_on_stack, resume, syscall6, thread_pointer,
};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{
    Context, RSEQ_SIGNATURE, call_on_stack, clone_on_stack, resume, syscall6, thread_pointer,
};

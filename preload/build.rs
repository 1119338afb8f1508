//! Has the loader start the shim before every other module (ld(1), `-z initfirst`): what constructors of libraries
//! allocate has a stack then, and what they do is checked.

fn main() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,initfirst");
}

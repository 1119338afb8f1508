//! How the shim is linked: the loader starts it before every other module (ld(1), `-z initfirst`), so that what
//! constructors of libraries allocate has a stack, and what they do is checked; its own functions are its own
//! (`-Bsymbolic`), whoever else defines some of that name.

fn main() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,initfirst,-Bsymbolic");
}

//! Valgrind's options in terms of ours.
//!
//! In: words. Out: [`Parsed`]. An option that bears our name and meaning is handed on as it is, one of ours that
//! Valgrind has not got (`--json=`) too; what remains is translated, or accepted without effect and told once.

use std::ffi::OsString;

use clap::{CommandFactory as _, Parser as _};

use super::{Manner, Request, Sink, VERSION};
use crate::flags::Flags;

/// All that Valgrind has: without `pool`.
const ALL_HEURISTICS: &str = "--leak-check-heuristics=stdstring,length64,newarray,multipleinheritance";

/// What Valgrind does where nothing is said.
const DEFAULTS: [&str; 7] = [
    "--leak-check=summary",
    ALL_HEURISTICS,
    "--num-callers=12",
    "--error-exitcode=0",
    "--trace-children=no",
    "--running-on-valgrind=yes",
    // Valgrind 3.19 does not know of it, later ones report it.
    "--show-realloc-size-zero=no",
];

/// Options that ask for what is so anyway, whatever their value.
const SO_ANYWAY: [&str; 9] = [
    "--error-limit",
    // Freed blocks are held back in two queues: large ones never push out small ones.
    "--freelist-big-blocks",
    "--keep-debuginfo",
    "--vgdb",
    "--run-libc-freeres",
    "--run-cxx-freeres",
    "--sigill-diagnostics",
    "--max-stackframe",
    "--main-stacksize",
];

/// Options that have no effect here, with the value that asks for nothing.
const WITHOUT_EFFECT: [(&str, &str); 38] = [
    ("--aspace-minaddr", ""),
    ("--allow-mismatched-debuginfo", "no"),
    ("--avg-transtab-entry-size", "0"),
    ("--debuginfo-server", ""),
    ("--dsymutil", "yes"),
    ("--expensive-definedness-checks", ""),
    ("--extra-debuginfo-path", ""),
    ("--fair-sched", "no"),
    ("--ignore-range-below-sp", ""),
    ("--input-fd", "0"),
    ("--kernel-variant", "none"),
    ("--max-threads", "500"),
    ("--merge-recursive-frames", "0"),
    ("--num-transtab-sectors", ""),
    ("--partial-loads-ok", "yes"),
    ("--px-default", ""),
    ("--px-file-backed", ""),
    ("--read-var-info", "no"),
    ("--require-text-symbol", ""),
    ("--resync-filter", ""),
    ("--show-emwarns", "no"),
    ("--sim-hints", "none"),
    ("--smc-check", ""),
    ("--track-origins", "no"),
    ("--undef-value-errors", "no"),
    ("--unw-stack-scan-frames", ""),
    ("--unw-stack-scan-thresh", "0"),
    ("--valgrind-stacksize", ""),
    ("--vgdb-error", ""),
    ("--vgdb-poll", ""),
    ("--vgdb-prefix", ""),
    ("--vgdb-shadow-registers", "no"),
    ("--vgdb-stop-at", "none"),
    ("--workaround-gcc296-bugs", "no"),
    ("--xtree-leak", "no"),
    ("--xtree-leak-file", ""),
    ("--xtree-memory", "none"),
    ("--xtree-memory-file", ""),
];

/// Options that look into Valgrind itself (`valgrind --help-debug`), by how they begin.
const FOR_DEVELOPERS: [&str; 13] = [
    "-d",
    "--command-line-only",
    "--core-redzone-size",
    "--debug-dump",
    "--dump-error",
    "--profile-",
    "--progress-interval",
    "--sanity-level",
    "--sym-offsets",
    "--trace-",
    "--vex-",
    "--wait-for-gdb",
    "--xtree-compress-strings",
];
/// What begins with `--trace-` and is for users.
const TRACED_CHILDREN: &str = "--trace-children";

/// Where the XML goes.
enum Xml {
    File(OsString),
    Socket(String),
}

/// What a command line asks for.
pub enum Parsed {
    /// To run a program.
    Run(Box<Request>),
    /// To say this and end well.
    Say(String),
    /// To say what is wrong.
    Refuse(String),
}

/// Reads options, configured ones first.
pub fn parse(words: impl Iterator<Item = OsString>) -> Parsed {
    let mut manner = Manner {
        sink: Sink::Default,
        markers: None,
        time_stamp: false,
        full_paths: Vec::new(),
        is_xml: false,
        xml_socket: None,
        without_effect: Vec::new(),
    };
    let mut handed_on: Vec<OsString> = ["valgrind"].into_iter().chain(DEFAULTS).map(OsString::from).collect();
    let mut xml = None;
    let mut shows_reachable = None;
    let mut shows_possible = None;
    for word in words {
        let Some(text) = word.to_str() else {
            handed_on.push(word);
            continue;
        };
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        let value = value.unwrap_or_default();
        match name {
            "--version" => return Parsed::Say(format!("valgrind-{VERSION}\n")),
            "-h" | "--help" | "--help-debug" | "--help-dyn-options" => return Parsed::Say(help()),
            "--tool" if value == "memcheck" => {}
            "--tool" => {
                return Parsed::Refuse(format!(
                    "--tool={value}: only memcheck is here; start Valgrind itself for its other tools"
                ));
            }
            "--leak-check-heuristics" if value == "all" => handed_on.push(ALL_HEURISTICS.into()),
            "--show-reachable" => shows_reachable = Some(value == "yes"),
            "--show-possibly-lost" => shows_possible = Some(value == "yes"),
            "--num-callers" => {
                // Valgrind keeps up to 500 frames.
                let most = value.parse().unwrap_or(0u64).min(memcheck_model::MAX_FRAMES as u64);
                handed_on.push(format!("{name}={most}").into());
            }
            "--show-error-list" if value == "no" => {}
            "--show-error-list" => handed_on.push("-s".into()),
            "--log-fd" => match value.parse() {
                Ok(descriptor) => manner.sink = Sink::Descriptor(descriptor),
                Err(_) => return Parsed::Refuse(format!("--log-fd={value}: expected a number")),
            },
            "--log-socket" => manner.sink = Sink::Socket(value.to_owned()),
            "--log-file" => {
                manner.sink = Sink::Default;
                handed_on.push(word);
            }
            "--xml" => manner.is_xml = value == "yes",
            "--xml-fd" => xml = Some(Xml::File(format!("/dev/fd/{value}").into())),
            "--xml-file" => xml = Some(Xml::File(value.into())),
            "--xml-socket" => xml = Some(Xml::Socket(value.to_owned())),
            "--error-markers" => {
                let (begin, end) = value.split_once(',').unwrap_or((value, ""));
                manner.markers = Some((begin.to_owned(), end.to_owned()));
            }
            "--time-stamp" => manner.time_stamp = value == "yes",
            "--fullpath-after" => manner.full_paths.push(value.to_owned()),
            "--stats" if value == "no" => {}
            "--stats" => handed_on.push(name.into()),
            _ if SO_ANYWAY.contains(&name) => {}
            _ if FOR_DEVELOPERS.iter().any(|start| name.starts_with(start))
                && !name.starts_with(TRACED_CHILDREN) =>
            {
                manner.without_effect.push(name.to_owned());
            }
            _ => match WITHOUT_EFFECT.iter().find(|(option, _)| *option == name) {
                Some((_, nothing)) if *nothing == value => {}
                Some(_) => manner.without_effect.push(name.to_owned()),
                None => handed_on.push(word),
            },
        }
    }
    match (manner.is_xml, xml) {
        (false, _) => {}
        (true, Some(Xml::File(file))) => {
            let mut option = OsString::from("--xml-file=");
            option.push(file);
            handed_on.push(option);
        }
        (true, Some(Xml::Socket(address))) => manner.xml_socket = Some(address),
        (true, None) => {
            return Parsed::Refuse("--xml=yes needs --xml-fd=, --xml-file= or --xml-socket=".to_owned());
        }
    }
    // As Valgrind has it: the older pair of options sets the newer one.
    if shows_reachable.is_some() || shows_possible.is_some() {
        let kinds = match (shows_reachable, shows_possible) {
            (Some(true), _) => "all",
            (_, Some(false)) => "definite",
            _ => "definite,possible",
        };
        handed_on.push(format!("--show-leak-kinds={kinds}").into());
    }
    match Flags::try_parse_from(handed_on) {
        Ok(flags) => Parsed::Run(Box::new(Request { flags, manner })),
        Err(error) => Parsed::Refuse(error.to_string().trim_start_matches("error: ").trim_end().to_owned()),
    }
}

fn help() -> String {
    let ours = Flags::command()
        .name("valgrind")
        .override_usage("valgrind [OPTIONS] PROGRAM [ARGS]...")
        .after_help(
            "This is memcheck with Valgrind's options and text. The defaults are Valgrind's, not those above: \
             --leak-check=summary --num-callers=12 --error-exitcode=0 --trace-children=no. Also: --tool=memcheck \
             --show-reachable --show-possibly-lost --log-fd --log-socket --xml-fd --error-markers --time-stamp \
             --fullpath-after. Valgrind's other options are accepted without effect and named once.",
        )
        .render_help();
    format!("{ours}\n  Extra options read from ~/.valgrindrc, $VALGRIND_OPTS, ./.valgrindrc\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{LeakCheckFlag, YesNo};

    fn request(words: &[&str]) -> Request {
        match parse(words.iter().map(OsString::from)) {
            Parsed::Run(request) => *request,
            Parsed::Say(text) | Parsed::Refuse(text) => panic!("{text}"),
        }
    }

    #[test]
    fn defaults_are_valgrinds_and_the_last_option_wins() {
        let flags = request(&[]).flags;
        assert_eq!((flags.leak_check, flags.num_callers), (LeakCheckFlag::Summary, 12));
        assert_eq!((flags.error_exitcode, flags.trace_children), (0, YesNo::No));
        assert_eq!(flags.leak_check_heuristics.0, 0b1111);
        let flags = request(&["--leak-check=no", "--leak-check=yes", "--num-callers=500"]).flags;
        assert_eq!((flags.leak_check, flags.num_callers), (LeakCheckFlag::Full, 64));
        assert_eq!(request(&["--leak-check-heuristics=all"]).flags.leak_check_heuristics.0, 0b1111);
    }

    #[test]
    fn every_option_of_valgrind_is_accepted() {
        let options = "--tool=memcheck -q -v -s --leak-check=full --show-leak-kinds=all \
            --errors-for-leak-kinds=none --show-reachable=yes --show-possibly-lost=no --leak-resolution=med \
            --leak-check-heuristics=all --num-callers=30 --default-suppressions=no --gen-suppressions=all \
            --log-file=x --log-fd=9 --log-socket=127.0.0.1:1500 --error-exitcode=3 --exit-on-first-error=no \
            --error-limit=no --error-markers=a,b --trace-children=yes --trace-children-skip=/bin/* \
            --trace-children-skip-by-arg=x --child-silent-after-fork=yes --track-fds=no --time-stamp=yes \
            --fullpath-after= --demangle=yes --show-below-main=yes --keep-debuginfo=yes --read-inline-info=yes \
            --malloc-fill=ab --free-fill=0xcd --freelist-vol=1000 --freelist-big-blocks=10 --redzone-size=16 \
            --alignment=16 --keep-stacktraces=alloc --show-mismatched-frees=no --show-realloc-size-zero=no \
            --realloc-zero-bytes-frees=yes --ignore-ranges=0x1-0x2 --soname-synonyms=somalloc=NONE --vgdb=no \
            --track-origins=yes --smc-check=all --trace-malloc=yes --stats=no";
        let words: Vec<&str> = options.split_whitespace().collect();
        let manner = request(&words).manner;
        assert_eq!(manner.sink, Sink::Socket("127.0.0.1:1500".to_owned()));
        assert_eq!(manner.markers, Some(("a".to_owned(), "b".to_owned())));
        assert!(manner.time_stamp && manner.full_paths == [""]);
        let named: Vec<&str> = manner.without_effect.iter().map(String::as_str).collect();
        assert_eq!(named.join(" "), "--track-origins --smc-check --trace-malloc");
    }

    #[test]
    fn other_tools_and_unknown_options_are_refused() {
        let refused = |word: &str| match parse([OsString::from(word)].into_iter()) {
            Parsed::Refuse(text) => text,
            _ => panic!("{word} is accepted"),
        };
        assert!(refused("--tool=massif").contains("only memcheck"));
        assert!(refused("--leak-chek=full").contains("--leak-check"));
        assert!(
            matches!(parse(["--version".into()].into_iter()), Parsed::Say(text) if text == "valgrind-3.19.0\n")
        );
    }
}

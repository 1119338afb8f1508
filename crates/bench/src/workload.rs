//! The programs of the table, and what they work on.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::measure::Bench;

/// One program at work.
#[derive(Debug)]
pub struct Workload {
    /// The row's title.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// The same, built with AddressSanitizer.
    pub asan: Option<PathBuf>,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its standard input.
    pub input: Option<PathBuf>,
}

/// The programs beside this source, with the argument that makes them run for a third of a second or so.
const OWN: &[(&str, &str)] =
    &[("trees", "19"), ("hash", "6000000"), ("matrix", "900"), ("chase", "300"), ("sorting", "500000")];

/// Debian's programs: name, arguments, input.
const PROGRAMS: &[(&str, &[&str], &str)] = &[
    ("bzip2", &["-kc", "text"], ""),
    ("zstd", &["-q", "-T1", "-9", "-c", "text"], ""),
    ("lua5.4", &["script.lua"], ""),
    ("sqlite3", &["-batch", ":memory:"], "script.sql"),
    (
        "jq",
        &["-c", "map({k, n: (.s | length), t: (.l | add)}) | group_by(.n) | map(length)", "data.json"],
        "",
    ),
    (
        "gawk",
        &[
            "{ for (i = 1; i <= NF; i++) n[$i]++ } END { for (w in n) s += n[w] * length(w); print s }",
            "text",
        ],
        "",
    ),
];

/// Every workload; `built` is the folder of plain and ASan builds.
pub fn all(bench: &Bench, built: Option<&Path>) -> Result<Vec<Workload>, String> {
    write_inputs(&bench.place)?;
    let mut all = Vec::new();
    for (name, argument) in OWN {
        all.push(Workload {
            name: (*name).to_owned(),
            program: bench.compile(name, &[])?,
            asan: Some(bench.compile(name, &["-fsanitize=address"])?),
            arguments: vec![(*argument).to_owned()],
            input: None,
        });
    }
    for (name, arguments, input) in PROGRAMS {
        let workload = |title: String, program: PathBuf, asan| Workload {
            name: title,
            program,
            asan,
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
            input: Some(bench.place.join(input)).filter(|_| !input.is_empty()),
        };
        let there = |kind: &str| built.map(|dir| dir.join(kind).join(name)).filter(|path| path.exists());
        if let Some(native) = there("native") {
            all.push(workload(format!("{name} -O2"), native, there("asan")));
        }
        let debian = Path::new("/usr/bin").join(name);
        if debian.exists() {
            all.push(workload((*name).to_owned(), debian, None));
        }
    }
    Ok(all)
}

fn write_inputs(place: &Path) -> Result<(), String> {
    let mut text = String::new();
    let mut state = 1u32;
    for line in 0..60_000 {
        for _ in 0..8 {
            state = state.wrapping_mul(1_103_515_245).wrapping_add(12345);
            let _ = write!(
                text,
                "{}{} ",
                ["alpha", "beta", "gamma", "delta"][state as usize >> 30],
                (state >> 16) % 997
            );
        }
        let _ = writeln!(text, "{line}");
    }
    let objects: Vec<String> = (0..40_000)
        .map(|i| format!(r#"{{"k":{i},"s":"{}","l":[{i},{},3]}}"#, "x".repeat(i % 50), i % 7))
        .collect();
    let lua = "local t = {}\n\
               for i = 1, 400000 do t[i] = { key = (i * 7919) % 400009, name = 'n' .. i % 1000 } end\n\
               table.sort(t, function(a, b) return a.key < b.key end)\n\
               local count, text = {}, {}\n\
               for _, e in ipairs(t) do count[e.name] = (count[e.name] or 0) + 1; text[#text + 1] = e.name end\n\
               print(#table.concat(text, ' '):gsub('n(%d)', '%1-'))\n\
               local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end\n\
               print(fib(27))\n";
    let sql = "create table t(id integer primary key, name text, value real);\n\
               with recursive n(i) as (select 1 union all select i + 1 from n where i < 150000)\n\
               insert into t select i, 'name' || (i * 7919 % 150001), i * 0.5 from n;\n\
               create index by_name on t(name);\n\
               select substr(name, 1, 6) as g, count(*), sum(value) from t group by g order by 3 desc limit 5;\n\
               select count(*) from t a join t b on b.name = 'name' || a.id where a.value < 30000;\n\
               update t set value = value + length(name) where id % 3 = 0;\n\
               select max(value), min(name) from t;\n";
    let files = [
        ("text", text),
        ("data.json", format!("[{}]", objects.join(","))),
        ("script.lua", lua.to_owned()),
        ("script.sql", sql.to_owned()),
    ];
    for (name, content) in files {
        fs::write(place.join(name), content).map_err(|e| format!("failed to write {name}: {e}"))?;
    }
    Ok(())
}

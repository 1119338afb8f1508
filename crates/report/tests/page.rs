//! The HTML page: one file that needs nothing else; and what a browser makes of it, where one is installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use memcheck_model::{Addr, LeakKind};
use memcheck_report::{
    AccessRecord, BlockRecord, BlockStatus, Finding, Format, Frame, LeakRecord, Level, Losses, Operation,
    Report, SourceRoot,
};

fn frame(function: &str, file: &str, line: u32) -> Frame {
    Frame {
        pc: Addr(0x40_1136),
        module: Some("/home/u/a.out".into()),
        function: Some(function.into()),
        file: Some(file.into()),
        line: Some(line),
        ..Frame::default()
    }
}

fn report(file: &str, findings: usize) -> Report {
    let mut report = Report::new(vec!["./a.out".into(), "</script><b>".into()]);
    for index in 0..findings {
        report.errors.push(Finding {
            id: if index % 2 == 0 { "heap-buffer-overflow" } else { "double-free" }.into(),
            severity: Level::Error,
            message: format!("write number {index} of 4 bytes, 0 bytes past the end of a 24-byte block"),
            pid: 12,
            tid: 12,
            count: 1,
            function: None,
            access: Some(AccessRecord { op: Operation::Write, size: 4, address: Addr(0x2000_0000_0028) }),
            block: Some(BlockRecord {
                address: Addr(0x2000_0000_0010),
                size: 24,
                offset: 24,
                state: BlockStatus::Live,
                allocated_by: "malloc".into(),
                allocated_tid: 12,
                freed_by: None,
                freed_tid: None,
            }),
            stack: vec![frame(&format!("fill{index}"), file, 3), frame("main", file, 5)],
            allocated: vec![frame("make", file, 2)],
            freed: Vec::new(),
            fingerprint: format!("{index:016x}"),
            notes: Vec::new(),
            help: "check the index".into(),
            suppression: None,
        });
    }
    for (function, bytes) in [("parse", 300), ("load", 700)] {
        let losses = Losses { blocks: 1, bytes, indirect_blocks: 0, indirect_bytes: 0 };
        let stack = vec![frame("duplicate", file, 2), frame(function, file, 4), frame("main", file, 5)];
        report.leaks.push(LeakRecord::new(LeakKind::Definite, losses, 12, stack));
    }
    report.summarize(&[LeakKind::Definite]);
    report
}

struct Page {
    scratch: tempfile::TempDir,
}

impl Page {
    fn of(findings: usize) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let source = scratch.path().join("list.c");
        std::fs::write(&source, "#include <x.h>\nmake();\n\tp[6] = 1; /* <i>here</i> */\nload();\nmain();\n")
            .unwrap();
        let page = Format::Html
            .render(&report(source.to_str().unwrap(), findings), &SourceRoot::new(scratch.path()));
        std::fs::write(scratch.path().join("page.html"), page).unwrap();
        Self { scratch }
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("page.html")).unwrap()
    }

    /// What the page becomes in a browser that starts with this wish; none without a browser.
    fn opened(&self, wish: &str, arguments: &[&str]) -> Option<String> {
        let url = format!("file://{}/page.html#{wish}", self.scratch.path().display());
        let output = Command::new("timeout")
            .args(["-k", "5", "120"])
            .arg(browser()?)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
            ])
            .arg(format!("--user-data-dir={}", self.scratch.path().join("profile").display()))
            .args(arguments)
            .args(["--virtual-time-budget=5000", "--window-size=1200,900", &url])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path)
        .flat_map(|folder| ["chromium", "google-chrome"].map(|name| folder.join(name)))
        .find(|file| file.exists());
    if found.is_none() {
        eprintln!("no chromium: the page is not opened");
    }
    found
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[test]
fn the_page_is_one_file_without_links_to_others() {
    let text = Page::of(2).text();
    for reference in ["src=", "href=", "http://", "https://", "@import", "url("] {
        assert!(!text.contains(reference), "{reference}");
    }
    assert_eq!(count(&text, "</script>"), 2, "the report ends no script");
    assert!(text.contains("default-src 'none'"));
}

#[test]
fn a_browser_shows_findings_with_source_bytes_and_leaks() {
    let page = Page::of(3);
    let Some(dom) = page.opened("open=1", &["--dump-dom"]) else { return };
    assert!(dom.contains("data-ready=\"1\""), "the script ran to its end");
    assert_eq!(count(&dom, "<details class=\"finding\" open"), 5);
    assert!(dom.contains("p[6] = 1; /* &lt;i&gt;here&lt;/i&gt; */"), "source is text");
    assert!(dom.contains("block of 24 bytes, access at 24 to 27"));
    assert!(dom.contains("load") && dom.contains("700 bytes, 70.0 %"), "the flame graph is by bytes");
    assert!(dom.contains("&lt;/script&gt;&lt;b&gt;"), "the command is text");
}

#[test]
fn a_browser_searches_folds_and_darkens() {
    let page = Page::of(30);
    let Some(dom) = page.opened("q=fill17&theme=dark", &["--dump-dom"]) else { return };
    assert!(dom.contains("data-theme=\"dark\""));
    assert!(dom.contains("1 of 32"));
    assert_eq!(count(&dom, "<details class=\"finding\""), 1);
    assert_eq!(count(&dom, "<details class=\"finding\" open"), 0, "findings are folded at first");
    let dom = page.opened("kind=double-free", &["--dump-dom"]).unwrap();
    assert!(dom.contains("15 of 32"));
}

#[test]
fn ten_thousand_findings_do_not_freeze_the_browser() {
    let page = Page::of(10_000);
    // It is given two minutes, of which it takes seconds.
    let Some(dom) = page.opened("q=fill9999", &["--dump-dom"]) else { return };
    assert!(dom.contains("1 of 10,002"));
    let dom = page.opened("", &["--dump-dom"]).unwrap();
    let rows = count(&dom, "<details class=\"finding\"");
    assert!((200..1200).contains(&rows), "{rows} rows were built for what is seen");
}

#[test]
fn light_and_dark_are_different_pictures() {
    let page = Page::of(3);
    let shot = |theme: &str| {
        let file: PathBuf = page.scratch.path().join(format!("{theme}.png"));
        page.opened(&format!("open=1&theme={theme}"), &[&format!("--screenshot={}", file.display())])?;
        Some(std::fs::read(file).unwrap())
    };
    let (Some(light), Some(dark)) = (shot("light"), shot("dark")) else { return };
    assert!(light.len() > 20_000 && dark.len() > 20_000 && light != dark);
    if let Some(folder) = std::env::var_os("MEMCHECK_SCREENSHOTS") {
        std::fs::write(Path::new(&folder).join("light.png"), light).unwrap();
        std::fs::write(Path::new(&folder).join("dark.png"), dark).unwrap();
    }
}

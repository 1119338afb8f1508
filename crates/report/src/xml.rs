//! Writing XML 1.0: elements, attributes and text, escaped.
//!
//! Invariant: what is written is well-formed whatever the text holds. Characters that XML cannot hold at all (XML 1.0,
//! production 2, `Char`) become U+FFFD.

/// A document that grows.
#[derive(Debug)]
pub(crate) struct Xml {
    text: String,
    open: Vec<&'static str>,
}

impl Xml {
    /// A document with its declaration.
    pub(crate) fn new() -> Self {
        Self { text: "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned(), open: Vec::new() }
    }

    fn start(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.text.push_str(&"  ".repeat(self.open.len()));
        self.text.push('<');
        self.text.push_str(name);
        for (key, value) in attributes {
            self.text.push_str(&format!(" {key}=\""));
            self.escape(value);
            self.text.push('"');
        }
        self.text.push('>');
    }

    /// `<name attributes>`, with what `inner` writes, and its end.
    pub(crate) fn element(
        &mut self,
        name: &'static str,
        attributes: &[(&str, &str)],
        inner: impl FnOnce(&mut Self),
    ) {
        self.start(name, attributes);
        self.text.push('\n');
        self.open.push(name);
        inner(self);
        self.open.pop();
        self.text.push_str(&"  ".repeat(self.open.len()));
        self.text.push_str(&format!("</{name}>\n"));
    }

    /// `<name>text</name>`.
    pub(crate) fn leaf(&mut self, name: &str, text: &str) {
        self.leaf_with(name, &[], text);
    }

    /// `<name attributes>text</name>`.
    pub(crate) fn leaf_with(&mut self, name: &str, attributes: &[(&str, &str)], text: &str) {
        self.start(name, attributes);
        self.escape(text);
        self.text.push_str(&format!("</{name}>\n"));
    }

    /// The document.
    pub(crate) fn finish(self) -> String {
        self.text
    }

    fn escape(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '&' => self.text.push_str("&amp;"),
                '<' => self.text.push_str("&lt;"),
                '>' => self.text.push_str("&gt;"),
                '"' => self.text.push_str("&quot;"),
                '\t' | '\n' => self.text.push(c),
                '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => self.text.push('\u{fffd}'),
                c => self.text.push(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_and_control_characters_are_escaped() {
        let mut xml = Xml::new();
        xml.element("a", &[("k", "\"<\u{1}")], |xml| xml.leaf("b", "x & y > z"));
        assert!(xml.finish().ends_with("<a k=\"&quot;&lt;\u{fffd}\">\n  <b>x &amp; y &gt; z</b>\n</a>\n"));
    }
}

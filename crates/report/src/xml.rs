//! Writing XML 1.0 with elements and texts.
//!
//! Invariant: what is written is well-formed whatever the text holds. Characters that XML cannot hold at all (XML 1.0,
//! production 2, `Char`) become U+FFFD.

use std::borrow::Cow;

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};

/// A document that grows.
pub(crate) struct Xml(Writer<Vec<u8>>);

impl Xml {
    /// A document with its declaration.
    pub(crate) fn new() -> Self {
        let mut xml = Self(Writer::new_with_indent(Vec::new(), b' ', 2));
        xml.write(Event::Decl(BytesDecl::new("1.0", None, None)));
        xml
    }

    /// Writing to memory does not fail.
    fn write(&mut self, event: Event<'_>) {
        let _ = self.0.write_event(event);
    }

    /// `<name>`, with what `inner` writes, and its end.
    pub(crate) fn element(&mut self, name: &str, inner: impl FnOnce(&mut Self)) {
        self.write(Event::Start(BytesStart::new(name)));
        inner(self);
        self.write(Event::End(BytesEnd::new(name)));
    }

    /// `<name>text</name>`.
    pub(crate) fn leaf(&mut self, name: &str, text: &str) {
        self.element(name, |xml| xml.write(Event::Text(BytesText::new(&representable(text)))));
    }

    /// `<name>number</name>`.
    pub(crate) fn number(&mut self, name: &str, number: u64) {
        self.leaf(name, &number.to_string());
    }

    /// The document.
    pub(crate) fn finish(self) -> String {
        String::from_utf8_lossy(&self.0.into_inner()).into_owned() + "\n"
    }
}

/// The text with what XML cannot hold replaced.
pub(crate) fn representable(text: &str) -> Cow<'_, str> {
    let is_bad =
        |c: char| matches!(c, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\u{fffe}' | '\u{ffff}');
    if text.contains(is_bad) { Cow::Owned(text.replace(is_bad, "\u{fffd}")) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_and_control_characters_are_escaped() {
        let mut xml = Xml::new();
        xml.element("a", |xml| xml.leaf("b", "x & y > \u{1}z"));
        assert!(xml.finish().ends_with("<a>\n  <b>x &amp; y &gt; \u{fffd}z</b>\n</a>\n"));
    }
}

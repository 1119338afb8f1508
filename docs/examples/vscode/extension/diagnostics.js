// From a report of memcheck to diagnostics as plain data: { file, line, column, severity, code, message, related }.
// Lines and columns count from 0, as editors have them.
"use strict";

const SYSTEM = /^\/(usr\/)?(lib|lib64|lib32|libexec)\//;

// The frame to point at: the innermost of the program's own code that has a source line.
function primary(stack) {
  const lined = stack.filter((frame) => frame.file && frame.line);
  return lined.find((frame) => frame.module && !SYSTEM.test(frame.module)) || lined[0];
}

function place(frame) {
  return { file: frame.file, line: frame.line - 1, column: Math.max((frame.column || 1) - 1, 0) };
}

function related(title, stack) {
  const frame = primary(stack);
  return frame ? [{ ...place(frame), message: title }] : [];
}

function calls(stack) {
  const lined = stack.filter((frame) => frame.file && frame.line);
  return lined.slice(1, 8).map((frame) => ({ ...place(frame), message: `called by ${frame.function || frame.pc}` }));
}

function diagnostics(report) {
  if (report.schema !== "memcheck-report/1") {
    throw new Error(`report of schema ${report.schema}, expected memcheck-report/1`);
  }
  const found = [];
  for (const error of report.errors) {
    const frame = primary(error.stack) || primary(error.allocated);
    if (frame) {
      found.push({
        ...place(frame), severity: error.severity, code: error.id, message: `${error.message}\n${error.help}`,
        related: [...calls(error.stack), ...related("the block was allocated here", error.allocated),
          ...related("the block was freed here", error.freed)],
      });
    }
  }
  for (const leak of report.leaks) {
    const frame = primary(leak.stack);
    if (frame) {
      const severity = leak.kind === "definite" || leak.kind === "possible" ? "error" : "note";
      found.push({ ...place(frame), severity, code: leak.kind, message: `${leak.message}\n${leak.help}`, related: calls(leak.stack) });
    }
  }
  return found;
}

module.exports = { diagnostics };

// Shows every memcheck*.json of the workspace as diagnostics, and again when one changes.
"use strict";

const path = require("path");
const vscode = require("vscode");
const { diagnostics } = require("./diagnostics");

const REPORTS = "**/memcheck*.json";

function activate(context) {
  const collection = vscode.languages.createDiagnosticCollection("memcheck");
  const byReport = new Map();

  const show = () => {
    const byFile = new Map();
    for (const entries of byReport.values()) {
      for (const [file, diagnostic] of entries) {
        byFile.set(file, [...(byFile.get(file) || []), diagnostic]);
      }
    }
    collection.clear();
    for (const [file, list] of byFile) {
      collection.set(vscode.Uri.file(file), list);
    }
  };

  const read = async (uri) => {
    try {
      const report = JSON.parse(new TextDecoder().decode(await vscode.workspace.fs.readFile(uri)));
      const folder = path.dirname(uri.fsPath);
      const where = (place) => ({
        file: path.resolve(folder, place.file),
        range: new vscode.Range(place.line, place.column, place.line, Number.MAX_SAFE_INTEGER),
      });
      byReport.set(uri.toString(), diagnostics(report).map((found) => {
        const { file, range } = where(found);
        const severity = found.severity === "error" ? vscode.DiagnosticSeverity.Error : vscode.DiagnosticSeverity.Information;
        const diagnostic = new vscode.Diagnostic(range, found.message, severity);
        diagnostic.source = "memcheck";
        diagnostic.code = found.code;
        diagnostic.relatedInformation = found.related.map((step) => {
          const at = where(step);
          return new vscode.DiagnosticRelatedInformation(new vscode.Location(vscode.Uri.file(at.file), at.range), step.message);
        });
        return [file, diagnostic];
      }));
    } catch (error) {
      byReport.delete(uri.toString());
      console.warn(`memcheck: ${uri.fsPath}: ${error.message}`);
    }
    show();
  };

  const watcher = vscode.workspace.createFileSystemWatcher(REPORTS);
  watcher.onDidCreate(read);
  watcher.onDidChange(read);
  watcher.onDidDelete((uri) => { byReport.delete(uri.toString()); show(); });
  const clear = vscode.commands.registerCommand("memcheck.clear", () => { byReport.clear(); show(); });
  context.subscriptions.push(collection, watcher, clear);
  return vscode.workspace.findFiles(REPORTS).then((uris) => Promise.all(uris.map(read)));
}

module.exports = { activate };

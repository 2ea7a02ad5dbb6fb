#include "launcher/line_editor.h"

#include <unistd.h>

#include <clocale>
#include <cstdio>
#include <iostream>

namespace lorikeet::launcher {
namespace {

constexpr int kLinesKept = 1000;

}  // namespace

LineEditor::LineEditor() {
  if (isatty(STDIN_FILENO) == 0 || isatty(STDOUT_FILENO) == 0) return;
  std::setlocale(LC_CTYPE, "");  // what is typed is in the terminal's encoding
  editor_ = el_init("lorikeet", stdin, stdout, stderr);
  if (editor_ == nullptr) return;
  el_set(editor_, EL_CLIENTDATA, this);
  el_set(editor_, EL_PROMPT, prompt_of);
  el_set(editor_, EL_EDITOR, "emacs");
  // While a line is edited, Ctrl-C is a key and no signal.
  el_set(editor_, EL_SETTY, "-d", "-isig", nullptr);
  el_set(editor_, EL_ADDFN, "drop-line", "Drops the line", drop_line);
  el_set(editor_, EL_BIND, "^C", "drop-line", nullptr);
  history_ = history_init();
  HistEvent event;
  history(history_, &event, H_SETSIZE, kLinesKept);
  history(history_, &event, H_SETUNIQUE, 1);
  el_set(editor_, EL_HIST, history, history_);
}

LineEditor::~LineEditor() {
  if (history_ != nullptr) history_end(history_);
  if (editor_ != nullptr) el_end(editor_);
}

std::optional<std::string> LineEditor::read(const std::string& prompt) {
  std::string line;
  if (editor_ == nullptr) {
    if (!std::getline(std::cin, line)) return std::nullopt;
    return line;
  }
  prompt_ = prompt;
  el_set(editor_, EL_PREP_TERM, 1);  // before the prompt is seen, or a Ctrl-C right behind it is a signal
  dropped_ = false;
  int count = 0;
  const char* text = el_gets(editor_, &count);
  if (dropped_) {
    std::fputs("\n", stdout);
    std::fflush(stdout);
    return "";
  }
  if (text == nullptr || count <= 0) return std::nullopt;
  line.assign(text, static_cast<size_t>(count));
  if (line.back() == '\n') line.pop_back();
  HistEvent event;
  if (!line.empty()) history(history_, &event, H_ENTER, line.c_str());
  return line;
}

LineEditor& LineEditor::of(EditLine* editor) {
  void* data = nullptr;
  el_get(editor, EL_CLIENTDATA, &data);
  return *static_cast<LineEditor*>(data);
}

char* LineEditor::prompt_of(EditLine* editor) {
  return of(editor).prompt_.data();
}

unsigned char LineEditor::drop_line(EditLine* editor, int) {
  of(editor).dropped_ = true;
  const LineInfo* line = el_line(editor);
  el_cursor(editor, static_cast<int>(line->lastchar - line->cursor));
  el_deletestr(editor, static_cast<int>(line->lastchar - line->buffer));
  el_insertstr(editor, "\n");
  return CC_NEWLINE;
}

}  // namespace lorikeet::launcher

// Lines that a person types, with the keys that shells have; or lines of a pipe.
#pragma once

#include <histedit.h>

#include <optional>
#include <string>

namespace lorikeet::launcher {

// One at a time. Where standard input and output are terminals, lines can be edited, arrows go through those before,
// Ctrl-C drops a line and Ctrl-D ends the input.
class LineEditor {
 public:
  LineEditor();
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  // Without its end; empty where it was dropped; nullopt at the end of the input.
  std::optional<std::string> read(const std::string& prompt);

 private:
  static LineEditor& of(EditLine* editor);
  static char* prompt_of(EditLine* editor);
  static unsigned char drop_line(EditLine* editor, int key);

  EditLine* editor_ = nullptr;  // null: there is no terminal
  History* history_ = nullptr;
  std::string prompt_;
  bool dropped_ = false;
};

}  // namespace lorikeet::launcher

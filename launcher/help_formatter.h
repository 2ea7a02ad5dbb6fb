// How --help looks: 80 columns, what a value may be and its default in words.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace lorikeet::launcher {

class HelpFormatter : public CLI::Formatter {
 public:
  HelpFormatter();
  std::string make_description(const CLI::App* app) const override;
  std::string make_option(const CLI::Option* option, bool is_positional) const override;
  std::string make_subcommand(const CLI::App* command) const override;
};

// `text` in lines of at most `width` characters, broken at spaces; all but the first begin behind `indent` spaces.
std::string wrap(const std::string& text, size_t width, size_t indent);

}  // namespace lorikeet::launcher

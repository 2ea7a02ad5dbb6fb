// The tree of a template. Names are numbered by the parser, so that scopes compare integers.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model/chat/jinja/value.h"

namespace lorikeet::model::jinja {

using NameId = int32_t;

struct Expression;
struct Statement;
using ExpressionPtr = std::unique_ptr<Expression>;
using Block = std::vector<std::unique_ptr<Statement>>;

struct CallArguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  ExpressionPtr more_positional, more_named;  // *x, **x; may be null
};

enum class ExpressionKind : uint8_t {
  constant,
  name,
  list,
  tuple,
  dict,         // children: key, value, key, value, ...
  attribute,    // children[0].text
  item,         // children[0][children[1]]
  slice,        // as the index of an item: three children, each may be null
  call,         // children[0](arguments)
  filter,       // children[0]|text(arguments); children[0] is null at the head of a filter block
  test,         // children[0] is text(arguments)
  logical_not,  // of one child
  negative,
  positive,
  binary,      // children[0] text children[1]: + - * / // % **
  concat,      // of all children: ~
  comparison,  // children[0] operators[0] children[1] operators[1] ...
  logical_and,
  logical_or,
  conditional,  // children[1] if children[0] else children[2], which may be null
};

struct Expression {
  ExpressionKind kind = ExpressionKind::constant;
  int line = 1;
  Value constant = {};
  NameId name = -1;
  std::string text = {};
  bool names_key = false;  // of an attribute: what a dict has under this name is a key's value, and nothing else
  std::vector<ExpressionPtr> children = {};
  std::vector<std::string> operators = {};
  CallArguments arguments = {};
};

struct Target {  // of an assignment: a name, an attribute of a namespace, or several
  NameId name = -1;
  std::string attribute = {};        // empty: the name itself
  std::vector<Target> several = {};  // not empty: these
  bool is_tuple = false;
};

struct Parameters {
  std::vector<NameId> names;
  std::vector<std::string> words;       // the same as text
  std::vector<ExpressionPtr> defaults;  // of the last ones
};

// What a block with variables of its own begins with: see frame_names.h.
struct FrameNames {
  std::vector<NameId> unset;  // undefined there until the block sets them, whatever they are outside
  // Names that Jinja gives it where it mentions them: loop in a for loop, the others in a macro.
  bool loop = false, caller = false, kwargs = false, varargs = false;
};

enum class StatementKind : uint8_t {
  data,           // text
  print,          // expressions
  if_else,        // expressions[i]: blocks[i]; one block more is the else
  for_loop,       // target in expressions[0], if expressions[1] (may be null): blocks[0], else blocks[1]
  set,            // target = expressions[0]
  set_block,      // target = what blocks[0] prints, through expressions[0] (a filter; may be null)
  macro,          // name, parameters, blocks[0]
  call_block,     // expressions[0] (a call), parameters, blocks[0] is the caller
  filter_block,   // expressions[0], blocks[0]
  with,           // targets = expressions, blocks[0]
  generation,     // blocks[0]
  break_loop,     //
  continue_loop,  //
};

struct Statement {
  StatementKind kind = StatementKind::data;
  int line = 1;
  Text text = {};
  NameId name = -1;
  Target target = {};
  std::vector<Target> targets = {};
  std::vector<ExpressionPtr> expressions = {};
  std::vector<Block> blocks = {};
  std::vector<FrameNames> frames = {};  // of the blocks, where they have variables of their own
  Parameters parameters = {};
};

struct Syntax {
  Block body;
  FrameNames frame;                // of the body
  std::vector<std::string> names;  // by NameId
};

}  // namespace lorikeet::model::jinja

#include "model/chat/jinja/frame_names.h"

#include <algorithm>
#include <string_view>
#include <unordered_set>

namespace lorikeet::model::jinja {
namespace {

// Calls f(name) for the names that an expression reads, in the order of Jinja's tree.
template <class F>
void for_each_name(const Expression& expression, const F& f) {
  if (expression.kind == ExpressionKind::name) f(expression.name);
  const auto inner = [&](const ExpressionPtr& child) {
    if (child) for_each_name(*child, f);
  };
  for (const auto& child : expression.children) inner(child);
  for (const auto& argument : expression.arguments.positional) inner(argument);
  for (const auto& [word, argument] : expression.arguments.named) inner(argument);
  inner(expression.arguments.more_positional);
  inner(expression.arguments.more_named);
}

// store(name) for what an assignment sets, load(name) for the namespaces whose attributes it sets.
template <class Store, class Load>
void for_each_target(const Target& target, const Store& store, const Load& load) {
  if (target.is_tuple) {
    for (const Target& one : target.several) for_each_target(one, store, load);
  } else if (target.attribute.empty()) {
    store(target.name);
  } else {
    load(target.name);
  }
}

// Which of a few names are read below statements before they are set there, in the order of Jinja's tree.
class Mentions {
 public:
  explicit Mentions(std::vector<NameId> names) : names_(std::move(names)) {}

  bool found(NameId name) const { return std::find(found_.begin(), found_.end(), name) != found_.end(); }

  void look(const Block& block) {
    for (const auto& statement : block) look(*statement);
  }

 private:
  void look(const Statement& statement) {
    const auto expressions = [&] {
      for (const auto& expression : statement.expressions) look(expression);
    };
    const auto blocks = [&] {
      for (const Block& block : statement.blocks) look(block);
    };
    set(statement.target);
    for (const Target& target : statement.targets) set(target);
    switch (statement.kind) {
      case StatementKind::if_else:
        for (size_t i = 0; i < statement.blocks.size(); ++i) {
          if (i < statement.expressions.size()) look(statement.expressions[i]);
          look(statement.blocks[i]);
        }
        return;
      case StatementKind::for_loop:  // its `if` last
        look(statement.expressions[0]);
        blocks();
        look(statement.expressions[1]);
        return;
      case StatementKind::filter_block:
        blocks();
        expressions();
        return;
      default:
        expressions();
        for (const NameId name : statement.parameters.names) set(name);
        for (const auto& value : statement.parameters.defaults) look(value);
        blocks();
    }
  }

  void look(const ExpressionPtr& expression) {
    if (!expression) return;
    for_each_name(*expression, [this](NameId name) {
      if (std::find(names_.begin(), names_.end(), name) != names_.end()) found_.push_back(name);
    });
  }
  void set(NameId name) { names_.erase(std::remove(names_.begin(), names_.end(), name), names_.end()); }
  void set(const Target& target) {
    if (!target.is_tuple && target.name < 0) return;
    for_each_target(
        target, [this](NameId name) { set(name); }, [](NameId) {});
  }

  std::vector<NameId> names_, found_;
};

class Settler {
 public:
  explicit Settler(Syntax& syntax)
      : syntax_(syntax),
        caller_(id_of("caller")),
        kwargs_(id_of("kwargs")),
        varargs_(id_of("varargs")),
        loop_(id_of("loop")) {}

  void run() {
    Frame root;
    own_names(syntax_.body, root);
    inner_frames(syntax_.body, root);
    syntax_.frame = std::move(root.names);
  }

 private:
  struct Frame {
    const Frame* outer = nullptr;
    std::unordered_set<NameId> known;  // that it sets, or that it has read and no outer one knows
    FrameNames names = {};
    int branches = 0;  // of `if` around what is looked at
  };

  NameId id_of(std::string_view name) const {
    const auto found = std::find(syntax_.names.begin(), syntax_.names.end(), name);
    return found == syntax_.names.end() ? -1 : static_cast<NameId>(found - syntax_.names.begin());
  }

  static bool known_around(const Frame& frame, NameId name) {
    for (const Frame* outer = frame.outer; outer != nullptr; outer = outer->outer) {
      if (outer->known.count(name) > 0) return true;
    }
    return false;
  }

  static void load(Frame& frame, NameId name) {
    if (!known_around(frame, name)) frame.known.insert(name);
  }

  // What is set in a branch may not be, and begins as what it is outside; so does what an outer frame knows.
  static void store(Frame& frame, NameId name) {
    if (frame.known.insert(name).second && frame.branches == 0 && !known_around(frame, name)) {
      frame.names.unset.push_back(name);
    }
  }

  static void parameter(Frame& frame, NameId name) {
    frame.known.insert(name);
    auto& unset = frame.names.unset;
    unset.erase(std::remove(unset.begin(), unset.end(), name), unset.end());
  }

  static void load(Frame& frame, const ExpressionPtr& expression) {
    if (expression) for_each_name(*expression, [&frame](NameId name) { load(frame, name); });
  }
  static void store(Frame& frame, const Target& target) {
    for_each_target(
        target, [&frame](NameId name) { store(frame, name); }, [&frame](NameId name) { load(frame, name); });
  }
  static void parameter(Frame& frame, const Target& target) {
    for_each_target(
        target, [&frame](NameId name) { parameter(frame, name); }, [](NameId) {});
  }

  // The names of the block itself, not of those inside that have frames of their own.
  void own_names(const Block& block, Frame& frame) {
    for (const auto& statement : block) own_names(*statement, frame);
  }

  void own_names(const Statement& statement, Frame& frame) {
    switch (statement.kind) {
      case StatementKind::if_else:
        for (size_t i = 0; i < statement.blocks.size(); ++i) {
          if (i < statement.expressions.size()) load(frame, statement.expressions[i]);
          ++frame.branches;
          own_names(statement.blocks[i], frame);
          --frame.branches;
        }
        return;
      case StatementKind::for_loop:
        return load(frame, statement.expressions[0]);
      case StatementKind::set:
        load(frame, statement.expressions[0]);
        return store(frame, statement.target);
      case StatementKind::set_block:
        return store(frame, statement.target);
      case StatementKind::macro:
        return store(frame, statement.name);
      default:
        for (const auto& expression : statement.expressions) load(frame, expression);
    }
  }

  void inner_frames(Block& block, const Frame& frame) {
    for (const auto& statement : block) inner_frames(*statement, frame);
  }

  void inner_frames(Statement& statement, const Frame& outer) {
    switch (statement.kind) {
      case StatementKind::if_else:
        for (Block& block : statement.blocks) inner_frames(block, outer);
        return;
      case StatementKind::for_loop:
        return loop_frames(statement, outer);
      case StatementKind::macro:
      case StatementKind::call_block:
      case StatementKind::generation:
        return macro_frame(statement, outer);
      case StatementKind::set_block:
      case StatementKind::filter_block:
      case StatementKind::with: {
        Frame frame{&outer, {}};
        for (const Target& target : statement.targets) parameter(frame, target);
        own_names(statement.blocks[0], frame);
        if (statement.kind == StatementKind::filter_block) load(frame, statement.expressions[0]);
        return finish(statement, statement.blocks[0], frame);
      }
      default:
        return;
    }
  }

  void finish(Statement& statement, Block& block, Frame& frame) {
    inner_frames(block, frame);
    statement.frames.push_back(std::move(frame.names));
  }

  void loop_frames(Statement& statement, const Frame& outer) {
    if (sets_loop(statement)) raise("line {}: loop cannot be assigned to inside of a for loop", statement.line);
    Frame body{&outer, {}};
    Mentions mentions({loop_});
    mentions.look(statement.blocks[0]);
    body.names.loop = mentions.found(loop_);
    if (body.names.loop) parameter(body, loop_);
    parameter(body, statement.target);
    own_names(statement.blocks[0], body);
    finish(statement, statement.blocks[0], body);
    if (statement.blocks.size() < 2) return;
    Frame otherwise{&outer, {}};
    own_names(statement.blocks[1], otherwise);
    finish(statement, statement.blocks[1], otherwise);
  }

  bool sets_loop(const Statement& statement) const {
    if (loop_ < 0) return false;
    bool sets = false;
    const auto look = [&](const Target& target) {
      if (!target.is_tuple && target.name < 0) return;
      for_each_target(
          target, [&](NameId name) { sets = sets || name == loop_; }, [](NameId) {});
    };
    look(statement.target);
    if (statement.kind != StatementKind::with) {
      for (const Target& target : statement.targets) look(target);
    }
    for (const Block& block : statement.blocks) {
      for (const auto& inner : block) sets = sets || sets_loop(*inner);
    }
    return sets;
  }

  // Of a macro, of what call hands to one, and of generation, which is a call in transformers.
  void macro_frame(Statement& statement, const Frame& outer) {
    const Parameters& given = statement.parameters;
    Frame frame{&outer, {}};
    for (const NameId name : given.names) parameter(frame, name);
    for (const auto& value : given.defaults) load(frame, value);
    own_names(statement.blocks[0], frame);
    Mentions mentions({caller_, kwargs_, varargs_});
    mentions.look(statement.blocks[0]);
    const auto special = [&](NameId name) {
      if (!mentions.found(name)) return false;
      if (std::find(given.names.begin(), given.names.end(), name) != given.names.end()) return false;
      parameter(frame, name);
      return true;
    };
    const auto own_caller = std::find(given.names.begin(), given.names.end(), caller_) - given.names.begin();
    const auto without_default = static_cast<ptrdiff_t>(given.names.size() - given.defaults.size());
    if (mentions.found(caller_) && own_caller < without_default) {
      raise("line {}: the parameter caller needs a default", statement.line);
    }
    frame.names.caller = special(caller_);
    frame.names.kwargs = special(kwargs_);
    frame.names.varargs = special(varargs_);
    finish(statement, statement.blocks[0], frame);
  }

  Syntax& syntax_;
  const NameId caller_, kwargs_, varargs_, loop_;  // -1: the template has no such name
};

}  // namespace

void settle_names(Syntax& syntax) {
  Settler(syntax).run();
}

}  // namespace lorikeet::model::jinja

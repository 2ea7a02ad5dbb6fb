// Runs a template's tree. One Evaluator renders once, on one thread.
#pragma once

#include <cstdint>
#include <ctime>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model/chat/jinja/syntax.h"
#include "model/chat/jinja/value.h"

namespace lorikeet::model::jinja {

struct Limits {
  uint64_t max_steps = 50'000'000;  // of evaluation; 64 bytes of text that are made count as one
  size_t max_output = 64ULL << 20;  // bytes
  int max_depth = 800;              // of nested evaluation, macros included
};

class Evaluator {
 public:
  using Variables = std::map<std::string, Value, std::less<>>;

  Evaluator(const Syntax& syntax, const Variables& variables, std::time_t now, Limits limits);
  ~Evaluator();  // empties namespaces, which may hold themselves
  Evaluator(const Evaluator&) = delete;
  Evaluator& operator=(const Evaluator&) = delete;

  Text run();

  // Of the interpreter itself.
  Value call(const Value& callee, const Arguments& arguments);
  void charge(uint64_t steps) {
    steps_ += steps;
    if (steps_ > limits_.max_steps) raise("the template takes more than {} steps", limits_.max_steps);
  }
  void charge_bytes(size_t bytes) { charge(1 + bytes / 64); }
  Value make_namespace(Namespace space);
  std::time_t now() const { return now_; }

 private:
  struct Scope {
    Scope* parent = nullptr;
    bool captured = false;  // by a macro, which may be called when the scope's block has ended
    std::vector<std::pair<NameId, Value>> variables;
  };
  enum class Flow : uint8_t { go_on, break_loop, continue_loop };
  class ScopeGuard;
  class DepthGuard;

  Flow execute(const Block& block);
  Flow execute(const Statement& statement);
  Flow execute_if(const Statement& statement);
  Flow execute_for(const Statement& statement);
  Flow execute_with(const Statement& statement);
  void execute_call(const Statement& statement);
  void begin(const FrameNames& frame);                   // of the scope that has just been opened
  Flow capture(const Statement& statement, Text* text);  // what it prints goes to *text
  void print(const Value& value);

  void assign(const Target& target, const Value& value);
  void define(Scope& scope, NameId name, Value value);
  const Value* lookup(NameId name) const;
  NameId name_id(std::string_view name) const;  // -1: the template has no such name
  Value make_macro(const Statement& statement, std::string name);
  Value call_macro(const Statement& statement, const std::string& name, Scope* closure, const Arguments& arguments);
  void take_rest(const Statement& statement, const std::string& name, const Arguments& arguments,
                 std::vector<std::pair<std::string, Value>> named);

  Value evaluate(const Expression& expression);
  // The value where it lies, or `made`. Nothing that is evaluated meanwhile moves or changes it: expressions bring no
  // names into the scopes that they see, and members of namespaces, which change, are made.
  const Value& see(const Expression& expression, Value& made);
  const Value* find(const Expression& expression);  // null: it must be made
  bool is_true(const Expression& expression);
  void print_sum(const Expression& expression);
  Value evaluate_name(const Expression& expression) const;
  Value evaluate_item(const Expression& expression);
  Value evaluate_call(const Expression& expression, const std::pair<std::string, Value>* extra = nullptr);
  Value evaluate_filter(const Expression& expression, const Value* input = nullptr);
  Value evaluate_comparison(const Expression& expression);
  Value evaluate_concat(const Expression& expression);
  Value evaluate_sign(const Expression& expression);
  Arguments evaluate_arguments(const CallArguments& arguments);

  Scope& open_scope(Scope* parent);
  void close_scope(Scope& scope, bool of_macro);

  const Syntax& syntax_;
  const Limits limits_;
  const std::time_t now_;
  uint64_t steps_ = 0;
  int depth_ = 0;
  std::vector<Value> context_;  // [names]: what the template was given; undefined where it was not
  NameId loop_name_, caller_name_, varargs_name_, kwargs_name_;
  std::deque<Scope> scopes_;
  std::vector<Scope*> free_scopes_;
  Scope* scope_ = nullptr;
  Text* out_ = nullptr;
  std::vector<std::shared_ptr<Namespace>> namespaces_;
};

}  // namespace lorikeet::model::jinja

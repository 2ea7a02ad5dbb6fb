// Which bytes of a rendering are the template's own, and which a client sent.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "model/chat/jinja/json_text.h"
#include "model/chat/jinja/program.h"

namespace lorikeet::model::jinja {
namespace {

// The rendering with foreign bytes in angle brackets.
std::string marked(std::string_view source) {
  const Evaluator::Variables variables = {
      {"m", from_json({{"role", "user"}, {"content", " AbcdE "}, {"list", {"p", "q"}}, {"text", "x-y-z"}})},
      {"bos", Text::own("BOS")},
  };
  const auto program = Program::compile(source);
  if (!program) return program.error().message;
  const auto text = program->render(variables, 0);
  if (!text) return text.error().message;
  std::string out;
  size_t at = 0;
  for (const Span& span : text->foreign_spans()) {
    out +=
        text->bytes().substr(at, span.begin - at) + "<" + text->bytes().substr(span.begin, span.end - span.begin) + ">";
    at = span.end;
  }
  return out + text->bytes().substr(at);
}

TEST(JinjaSpans, FollowValuesThroughWhatTemplatesDoToThem) {
  const std::pair<const char*, const char*> cases[] = {
      {"own {{ m.content }} own", "own < AbcdE > own"},
      {"{{ bos ~ m.role ~ 1 ~ none }}", "BOS<user>1None"},
      {"{{ '[' + m.role + ']' }}", "[<user>]"},
      {"{{ m.content | trim }}|{{ m.content.strip() }}", "<AbcdE>|<AbcdE>"},
      {"{{ ('[' ~ m.content ~ ']')[0:4] }}", "[< Ab>"},
      {"{{ ('[' ~ m.role ~ ']')[::-1] }}", "]<resu>["},
      {"{{ m.text.split('-') | join('+') }}", "<x>+<y>+<z>"},
      {"{{ m.text.replace('-', '+') }}", "<x>+<y>+<z>"},
      {"{{ 'a-b'.replace('-', m.role) }}", "a<user>b"},
      {"{{ '%s=%s' % (m.role, 'v') }}", "<user>=v"},
      {"{{ '{}:{}'.format('k', m.role) }}", "k:<user>"},
      {"{{ m.role | upper }}{{ 'x' | upper }}", "<USER>X"},
      {"{{ m.list | tojson }}{{ ['k'] | tojson }}", "<[\"p\", \"q\"]>[\"k\"]"},
      {"{{ m.list }}", "[<'p'>, <'q'>]"},
      {"{% set x %}<{{ m.role }}>{% endset %}{{ x }}", "<<user>>"},
      {"{% macro f(v) %}({{ v }}){% endmacro %}{{ f(m.role) }}{{ f('t') }}", "(<user>)(t)"},
      {"{% macro f() %}{{ caller() }}{% endmacro %}{% call f() %}a{{ m.role }}{% endcall %}", "a<user>"},
      {"{% filter trim %}  {{ m.role }} {% endfilter %}", "<user>"},
      {"{% for c in m.role %}{{ c }}.{% endfor %}", "<u>.<s>.<e>.<r>."},
      {"{% for k, v in m.items() %}{{ k if loop.first }}{% endfor %}", "<role>"},
      {"{{ m.content | indent(1, true) }}", " < AbcdE >"},
      {"{{ m.role | center(8) }}", "  <user>  "},
      {"{{ m.nope | default('d') }}{{ m.role | default('d') }}", "d<user>"},
      {"{{ m.role if m.role == 'user' else 'x' }}", "<user>"},
      {"{{ 'user' if m.role == 'user' }}", "user"},
      {"{{ m.role | length }}", "4"},
      {"{{ '&' | e }}{{ m.role | e }}", "&amp;<user>"},
      {"{{ dict(a=m.role).a }}{{ namespace(a=m.role).a }}", "<useruser>"},
  };
  for (const auto& [source, expected] : cases) EXPECT_EQ(marked(source), expected) << source;
}

}  // namespace
}  // namespace lorikeet::model::jinja

#!/usr/bin/env python3
"""Renders templates with Jinja2, for tests/model/chat/jinja/jinja_test.cc.

    pip install 'jinja2>=3.1.6'
    tests/data/make/jinja_cases.py

Writes tests/data/jinja/cases.json: a list of {template, variables, text}; text is null where Jinja raises. And
tests/data/jinja/renderings.json: conversations, options, and for each template of tests/data/jinja/templates the digests
(SHA-256, 16 digits; null: refused) of all conversations under all options. The templates are written after the published
behaviour of the models that their names say, or of kinds of fine-tunes.
"""
import hashlib
import itertools
import json
import pathlib

from transformers_jinja import render

DATA = pathlib.Path(__file__).parent.parent / "jinja"

VARIABLES = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "  Hi <b>&'\"\n\tthere  \n"},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": [1, 2.5, None, True]}}}]},
    ],
    "text": "The quick brown fox\njumps över the lazy dog",
    "words": ["pear", "Apple", "fig", "apple", "Banana"],
    "numbers": [3, 1, 2, 3, -5, 0],
    "mixed": [0, "", None, False, [], {}, "x", 1, 2.0],
    "people": [
        {"name": "Ann", "age": 31, "tags": ["x", "y"], "home": {"city": "Oslo"}},
        {"name": "bob", "age": 7, "tags": [], "home": {"city": "Rome"}},
        {"name": "Cid", "age": 31, "tags": ["z"], "home": {}},
    ],
    "config": {"b": 2, "a": 1, "C": {"d": [1, {"e": None}]}, "é": "ü\u2028\U0001f642", "n": 1e16, "m": 1e-5, "big": 123456789012345678901234567890},
    "n": 7,
    "x": 2.5,
    "yes": True,
    "nothing": None,
    "empty": "",
    "unicode": "ñandú ÀÉ ß ﬁ 北京 \U0001f642 \u00a0end",
}

EXPRESSIONS = """
1 + 2 * 3 - 4 / 2
7 // 2, -7 // 2, 7 % 3, -7 % 3, 7 % -3, 2 ** 10, 2 ** -1, 7.5 // 2, -7.5 % 2, 1 / 3
-2 ** 2, (-2) ** 2, 2 ** 3 ** 2, - n, + n, -x
10 / 0
7 // 0
5 % 0
1_000 + 0x1F + 0b101 + 0o17, 1e3, 1.5e-7, 12345678901234567.0, 0.1 + 0.2, 1e16, 1e15, 100.0, 1e22, 5e-324
'a' ~ 1 ~ none ~ true ~ 2.0 ~ [1, 'b'] ~ {'k': (1,)} ~ undefined_name
'a' 'b' "c"
'a' + 'b' * 3, [1] + [2, 3] * 2, (1,) + (2,)
'a' + 1
1 + 'a'
[1] + (2,)
none + 1
undefined_name + 1
'%s is %d%% of %s' % ('a', 5, [1])
'%s' % 'x', '%s %s' % ('x', none), '%d' % 3
'%s %s' % 'x'
'x' % 1
'x' % [1], 'x' % {}, 'x' % undefined_name, '%s' % undefined_name
[1]|indent
none|truncate
[none]|max, [1, 2]|truncate(9)
'a\\n\\t\\x41\\u00e9\\'"\\\\d\\q', "it's", 'say "x"'
true and 'a' or 'b', false or none, 0 and 1, '' or 'default', not '', not 1, not not n
1 < 2 < 3, 1 < 3 < 2, 1 == 1.0, 1 == true, 'a' < 'b', [1, 2] < [1, 3], 'a' == 1, none == none, 1 != 2
1 < 'a'
none < 1
'a' in 'abc', 'd' not in 'abc', 2 in [1, 2], 'a' in config, 'z' in config, 3 not in numbers, '' in 'x'
1 in 'abc'
1 in 5
'x' in undefined_name, undefined_name == undefined_name, undefined_name != 1
undefined_name.attribute
undefined_name['item']
undefined_name()
n()
'a' if yes else 'b', 'a' if nothing else 'b', ('a' if nothing) is defined, ('a' if nothing) ~ '!'
messages[0].content, messages[0]['content'], messages[-1].role, messages[7], messages[7] is defined, messages[0].nope is defined
messages[0].nope.nope
messages[2].tool_calls[0].function.arguments.a[1], messages.2.role, messages[2].tool_calls[0]['function']['name']
text[0], text[-1], text[4:9], text[::-1], text[:3], text[-3:], text[::5], text[10:2:-2], text[100], text[100:] ~ '|'
numbers[1:3], numbers[::-1], numbers[-2:], numbers[::2], numbers[5:1:-1], (1, 2, 3)[1:], numbers[:], numbers[2:2]
numbers[::0]
numbers['a'] is defined, config[1] is defined, config['a'], config.get('a'), config.get('zz'), config.get('zz', 5)
unicode[0], unicode[-1], unicode[3:8], unicode|length, unicode.find('ú'), unicode.index('北')
text.upper(), text.lower(), text.title(), text.capitalize(), text.swapcase(), unicode.upper(), unicode.lower(), unicode.title(), unicode.capitalize(), unicode.casefold()
messages[1].content.strip() ~ '|', messages[1].content.lstrip() ~ '|', messages[1].content.rstrip('\\n ') ~ '|', 'xxaxx'.strip('x'), 'abc'.strip('ca'), 'x'.strip(none)
text.split(), text.split(' '), text.split(' ', 2), text.rsplit(' ', 1), text.split('o'), ''.split(), ''.split('x'), ' a  b '.split(), ' a  b '.split(' '), ' a b c '.split(none, 1), ' a b c '.rsplit(none, 1)
'a'.split('')
'a\\nb\\r\\nc\\n'.splitlines(), 'a\\nb'.splitlines(true), ''.splitlines(), 'a-b-c'.partition('-'), 'a-b-c'.rpartition('-'), 'abc'.partition('-'), 'abc'.rpartition('-')
text.startswith('The'), text.startswith(('x', 'T')), text.endswith('dog'), text.startswith('quick', 4), text.startswith('T', 0, 1), text.endswith('fox', 0, 19), 'abc'.startswith('', 3), 'abc'.startswith('', 4)
text.startswith(1)
text.find('fox'), text.rfind('o'), text.find('zzz'), text.count('o'), 'aaaa'.count('aa'), 'abc'.count(''), text.find('o', 20), text.find('o', -3)
text.index('zzz')
text.replace('o', '0'), text.replace('o', '0', 1), 'abc'.replace('', '-'), 'abc'.replace('', '-', 2), 'aaa'.replace('a', '')
'-'.join(words), ','.join('abc'), 'x'.join([])
'-'.join([1])
'7'.zfill(3), '-7'.zfill(4), 'a'.ljust(3) ~ '|', 'a'.rjust(3, '*'), 'ab'.center(5, '.'), 'abc'.center(6, '.'), 'a\\tb'.expandtabs(4)
'abc'.isalpha(), 'ab1'.isalnum(), '12'.isdigit(), '½'.isnumeric(), '½'.isdigit(), '  '.isspace(), ''.isspace(), 'Ab'.islower(), 'AB1'.isupper(), '1'.isupper(), 'é'.isascii(), '²'.isdigit(), '²'.isdecimal()
'{} and {}'.format(1, 'b'), '{1} {0}'.format('a', 'b'), '{x}{{}}'.format(x=3)
'prefix-x'.removeprefix('prefix-'), 'x.py'.removesuffix('.py'), 'x'.removeprefix('y')
'abc'.nope is defined, 'abc'.upper is defined, 'abc'.nope
'abc'.nope()
words.index('fig'), words.count('apple'), words.append is defined
words.append('x')
config.update({})
config.pop('a')
config.items()|list, config.keys()|list, config.values()|list|length, config.items()|length
config.copy() == config, {'a': 1}.keys(), {'a': 1}.items(), {'a': 1}.values()
[1, 'a', none, true, 2.0, [], {}, (), (1,), 'it\\'s', 'q"', "b'\\"", '\\n\\\\', 'é\\u200b']
{'a': 1, 'b': {'c': [1, 2]}, 1: 2, none: 3}, {}, [], (), {'a': 1, 'a': 2}
{[1]: 2}
range(3), range(1, 4)|list, range(5, 0, -2)|list, range(0)|list, range(3)[1], range(3)|length
range(1000000)
range(1, 2, 0)
dict(a=1, b=2), dict([('x', 1)]), dict({'q': 1}, r=2)
numbers|sort, numbers|sort(reverse=true), words|sort, words|sort(case_sensitive=true), people|sort(attribute='age')|map(attribute='name')|list, people|sort(attribute='age,name', reverse=true)|map(attribute='name')|join(' ')
[1, 'a']|sort
people|sort(attribute='home.city')|map(attribute='name')|list
config|dictsort, {'b': 1, 'A': 3, 'c': 2}|dictsort, {'b': 1, 'A': 3}|dictsort(true), {'b': 1, 'A': 3, 'c': 2}|dictsort(by='value'), {'b': 1, 'A': 3}|dictsort(reverse=true)
words|unique|list, words|unique(case_sensitive=true)|list, people|unique(attribute='age')|map(attribute='name')|list, numbers|unique|list
numbers|min, numbers|max, words|min, words|max, []|min, people|max(attribute='age')
numbers|sum, people|sum(attribute='age'), []|sum, [0.5, 1]|sum(start=2)
words|sum
numbers|first, numbers|last, []|first, ''|last, text|first, text|last
numbers|map('string')|list, words|map('upper')|list, people|map(attribute='home.city', default='none')|list, people|map(attribute='tags.0', default='-')|list, numbers|map('abs')|sum
words|map('nope')|list
people|selectattr('tags')|map(attribute='name')|list, people|rejectattr('tags')|map(attribute='name')|list, people|selectattr('age', '>', 10)|list|length, people|selectattr('home.city', 'defined')|list|length, people|rejectattr('name', 'in', ['Ann'])|map(attribute='name')|join
numbers|select('odd')|list, numbers|reject('odd')|list, mixed|select|list, mixed|reject|list, numbers|select('gt', 1)|list, mixed|select('string')|list, mixed|select('none')|list, numbers|select('divisibleby', 3)|list
numbers|select('nope')|list
numbers|select('odd')|length
numbers|join, numbers|join('-'), people|join(', ', attribute='name'), 'abc'|join('.'), []|join, mixed|join('|')
numbers|reverse|list, text|reverse, (1, 2)|reverse|list
people|groupby('age')|map('first')|list, people|groupby('age')|map('last')|map('length')|list, people|groupby('home.city', default='?')|map('first')|list
numbers|batch(4)|list, numbers|batch(4, 'x')|list, numbers|slice(4)|list, numbers|slice(4, 'x')|list
numbers|length, config|count, text|length, undefined_name|length, nothing|default('d'), undefined_name|default('d'), ''|default('d'), ''|default('d', true), undefined_name|d, 0|d(5, boolean=true)
nothing|length
5|length
numbers|list, 'abc'|list, config|list, undefined_name|list
5|list
config|items|list, undefined_name|items|list
'a'|items|list
'3.7'|int, '12'|int, 'x'|int, 'x'|int(5), '0x1f'|int(0, 16), '101'|int(base=2), 3.9|int, -3.9|int, true|int, nothing|int, ' 42 '|int, '1_000'|int, '1e3'|int, ''|int, 'ff'|int(base=16)
'3.5'|float, 'x'|float, 'x'|float(1.5), 3|float, '1e400'|float, '-inf'|float, 'nan'|float, true|float, [1]|float, '1_0.5'|float
2.5|round, 3.5|round, 2.567|round(2), 2.1|round(0, 'ceil'), 2.9|round(method='floor'), 7|round, 7|round(1), -2.5|round, 2.675|round(2), 1234.5|round(-2), 0.5|round, 1.005|round(2, 'ceil')
-5|abs, (-5)|abs, -2.5|abs, true|abs
'a'|abs
'hello world'|capitalize, 'hello-world foo_bar (baz) [q] <r> {s}'|title, 'ABC'|lower, 'abc'|upper, unicode|title, 'mcDonald o\\'neil'|title
'  x '|trim ~ '|', 'xxaxx'|trim('x'), nothing|trim, 5|trim
text|replace('o', '0'), text|replace('o', '0', 2), 'aaa'|replace('a', 'b', count=1), 5|replace('5', '6'), 'abc'|replace('b', 5)
text|indent, text|indent(2, true), text|indent('> '), 'a\\n\\nb'|indent(2, blank=true), 'a\\n\\nb\\n'|indent(2), 'a'|indent(2, first=true)
'abc'|center(9) ~ '|', text|wordcount, 'a_b c-d'|wordcount, ''|wordcount
text|truncate(20), text|truncate(20, true), text|truncate(20, false, '…'), 'short'|truncate(10), text|truncate(40, leeway=0), text|truncate(42)
'%s-%s'|format('a', 1), '%d'|format(5)
'<a href="x">&\\'</a>'|e, '<b>'|escape|escape, '<b>'|e|forceescape, '<b>'|safe, 5|e
('<b>'|safe) ~ '<i>', ('<b>'|e)|length
('<b>'|safe) + '<i>&"\\'', '<i>' + ('<b>'|safe), ('<b>'|safe) + ('<i>'|e), ('<b>'|safe) + '' + '<', messages[1].content + (words|tojson|safe), (('a'|safe) + 'b')|e is escaped
('ab'|e)|list, ('ab'|e)|first, ('ab'|e)|last, ('ab'|e)|sort, ('ab'|e)|min, ('abc'|e)|batch(2)|list, ('abc'|e)|slice(2)|list
('ab'|e)[0], ('ab'|e)[-1], ('ab'|e)[:1], ('ab'|e)[1:0], ('ab'|e)[::-1], ('ab'|e)|reverse, ('ab'|e) * 2, 0 * ('ab'|e)
('ab c'|e)|title, ('ab c'|e)|upper, ('ab c'|e)|capitalize, ('ab c'|e)|trim, ''|e|list, ''|safe|last|default('-')
[1, {'a': none}]|string, nothing|string, true|string, undefined_name|string ~ '|'
config|tojson, config|tojson(indent=2), [1, 2]|tojson(separators=(',', ':')), config|tojson(sort_keys=true), config|tojson(ensure_ascii=true), {}|tojson(indent=2), []|tojson(indent=1), [[]]|tojson(indent=1), 'é\\u2028"\\\\/\\n\\x7f\\x01'|tojson, true|tojson, none|tojson, 1.0|tojson, 1e16|tojson, (1, 2)|tojson, {1: 2, none: 3, true: 4, 1.5: 5}|tojson, 'a'|tojson(indent='\\t')
undefined_name|tojson
range(3)|tojson
messages|tojson
people|attr('x') is defined, 'abc'|attr('upper') is defined
x is number, n is integer, x is float, x is integer, yes is boolean, yes is true, yes is number, nothing is none, nothing is defined, undefined_name is undefined, text is string, config is mapping, numbers is sequence, text is sequence, 5 is iterable, numbers is iterable, config is iterable, undefined_name is iterable, none is sequence
3 is odd, 4 is even, 9 is divisibleby 3, 9 is divisibleby(2), 3 is eq 3, 3 is ne 4, 3 is gt 2, 3 is lessthan 4, 3 is ge 3, 3 is le 2, 3 is in [1, 3], 3 is not in [1], 'a' is lower, 'A' is upper, 'a' is sameas 'a', none is sameas none, 1 is sameas true, 'upper' is filter, 'odd' is test, 'x' is filter, range is callable, 'x' is callable, 'a' is escaped, 3 is not odd
'a' is odd
n is nope
text|nope
n is defined and n > 5, not n is defined, n is not defined or true
n is number is true
[x for x in numbers]
namespace(a=1).a, namespace({'b': 2}).b, namespace().zz is defined
namespace(_a=1)
cycler('a', 'b').next(), strftime_now('%Y-%m-%d %H:%M:%S'), strftime_now('%d %b %Y'), strftime_now('%A %B %j')
raise_exception('no')
''.__class__
config.__class__.__mro__
(config.__class__) is defined
1 if
(1
1, 2, (3, (4,)), ((5))
loop is defined, caller is defined, varargs is defined
n[1:]
config[1:]
nothing[:2]
words.0, words[1:][0], (words|sort)[0], words|sort|first|upper|length, 'x'.upper().lower(), {'f': 5}.f, [1, [2, [3]]][1][1][0]
'é' * 3, 'ab' * 0, 'ab' * -1, 3 * 'x', true + true, true * 'x', not true == false, 1 + true
'a' < 'B', 'é' > 'z', '\\U0001f642' > '\\uffff', [1] == (1,), {'a': 1} == {'a': 1.0}, (1, 2) == (1, 2)
'a' ~ 'b' + 'c' ~ 'd', 1 + 2 ~ 3, 2 * 3 ~ 4, -1 | abs, 2 ** 2 | abs, 2 * 3 | string
""".strip().split("\n")

TEMPLATES = [
    "a\n",
    "a\n\n",
    "\n",
    "",
    "a\r\nb\rc\n",
    "{% if yes %}\n  x\n{% endif %}\ny",
    "  {% if yes %}\n  x\n  {% endif %}\n  y",
    "a  {%- if yes -%}  x  {%- endif -%}  b",
    "a  {%+ if yes +%}\n  x  {% endif +%}\n  b",
    "a\n   {%+ if yes %}x{% endif %}\nb",
    "{{- n -}}  \n x {{ n -}}\n\n y {{- n }} z",
    "  {{ n }}\n{{ n }}\n",
    "{# c #}\na {# c -#}  \n b {#- c #} c\n   {# line #}\nd {#+ x +#}\ne",
    "{#- a -#}\n{#-#}x{#+#}\ny",
    "  {# only #}\n  text",
    "{% raw %}{{ n }} {% if %}{% endraw %}!",
    "a {% raw -%}  {{ x }}  {%- endraw %}\n b",
    "a\n  {%- raw %}\n {{ x }}\n  {% endraw %}\n b",
    "{%raw%}\n{%endraw%}x",
    "{{ '}}' }} {{ '%}' }} {{ {'a': {'b': 1}}['a']['b'] }} {% set d = {'a': '}'} %}{{ d.a }}",
    "{{ '{{' }}{{ \"{% x %}\" }}",
    "{{ 'multi\nline' }}{{ 'tab\\tnew\\nline' }}",
    "{% for i in numbers %}{{ i }}{% if not loop.last %}, {% endif %}{% endfor %}",
    "{% for i in [] %}x{% else %}none{% endfor %}|{% for i in undefined_name %}x{% else %}undefined{% endfor %}",
    "{% for i in numbers if i > 0 %}{{ loop.index }}/{{ loop.length }}:{{ i }} {% else %}none{% endfor %}",
    "{% for i in numbers if i > 99 %}x{% else %}none{% endfor %}",
    "{% for i in numbers if i > 0 %}{{ loop.last }}{{ loop.nextitem }}{{ loop.previtem }} {% endfor %}",
    "{% for i in words %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }} {% endfor %}",
    "{% for i in words %}{{ loop.previtem or '^' }}{{ i }}{{ loop.nextitem or '$' }} {% endfor %}",
    "{% for i in numbers %}{{ loop.cycle('a', 'b', 'c') }}{{ loop.changed(i > 0) }} {% endfor %}",
    "{% for a in [1, 2] %}{% for b in [3, 4] %}{{ a }}{{ b }}{{ loop.depth }}{{ loop.index }} {% endfor %}{{ loop.index }};{% endfor %}",
    "{% for k, v in config.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k in config %}{{ k }};{% endfor %}{% for c in 'aé🙂' %}[{{ c }}]{% endfor %}",
    "{% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for a, b in [(1, 2, 3)] %}{{ a }}{% endfor %}",
    "{% for a, in [(1,)] %}{{ a }}{% endfor %}",
    "{% for a in 5 %}{% endfor %}",
    "{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% for i in [1] %}{% break %}{% else %}none{% endfor %}!",
    "{% for i in [1] %}{% continue %}{% else %}none{% endfor %}!{% for i in [1, 2] %}{% if i == 2 %}{% continue %}{% endif %}{% else %}none{% endfor %}",
    "{% for a in [1, 2] %}{% for b in [1, 2] %}{% if b == 2 %}{% break %}{% endif %}{{ a }}{{ b }} {% endfor %}{% endfor %}",
    "{% break %}",
    "{% set a = 1 %}{% for i in [1, 2] %}{% set a = a + i %}{{ a }}{% endfor %}{{ a }}",
    "{% set ns = namespace(total=0, seen=[]) %}{% for i in numbers %}{% set ns.total = ns.total + i %}{% set ns.seen = ns.seen + [i] %}{% endfor %}{{ ns.total }} {{ ns.seen }}",
    "{% set ns = namespace(found=false) %}{% for i in numbers if not ns.found %}{% if i == 2 %}{% set ns.found = true %}{% endif %}{{ i }}{% endfor %}",
    "{% set ns = namespace(found=false) %}{% for i in numbers if not ns.found %}{% if i == 1 %}{% set ns.found = true %}{% endif %}{{ i }}{{ loop.last }}{% endfor %}",
    "{% set d = {} %}{% set d.x = 1 %}",
    "{% set a, b = 1, 2 %}{{ b }}{{ a }}{% set c = 1, %}{{ c }}",
    "{% set a, b = [1] %}",
    "{% set t %}<{{ n }}>{% endset %}{{ t }}{{ t|length }}{% set u | upper | replace('X', 'y') %}x{{ n }}{% endset %}{{ u }}",
    "{% if nothing %}a{% elif n == 7 %}b{% else %}c{% endif %}{% if undefined_name %}d{% endif %}{% if nothing %}{% elif nothing %}{% else %}e{% endif %}",
    "{% if yes %}{% set z = 1 %}{% endif %}{{ z }}",
    "{% with a = 1, b = n %}{{ a }}{{ b }}{% set a = 5 %}{{ a }}{% endwith %}{{ a is defined }}",
    "{% set a = 3 %}{% with a = a + 1, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}",
    "{% macro f(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ f(1) }} {{ f(1, 3) }} {{ f(b=5, a=4) }} {{ f() }}",
    "{% macro f(a) %}{{ a is defined }}{% endmacro %}{{ f() }}{{ f(1) }}",
    "{% macro f(a) %}x{% endmacro %}{{ f(1, 2) }}",
    "{% macro f(a) %}x{% endmacro %}{{ f(z=2) }}",
    "{% macro f() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, a=3) }}",
    "{% macro f(x) %}[{{ caller(x) }}]{% endmacro %}{% call(y) f(3) %}{{ y }}{{ n }}{% endcall %}",
    "{% macro f() %}[{{ caller() }}]{% endmacro %}{% call f() %}body{% endcall %}{{ f() }}",
    "{% macro f(n) %}{% if n > 0 %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% set a = 1 %}{% macro f() %}{{ a }}{% endmacro %}{% set a = 2 %}{{ f() }}",
    "{% for i in [1, 2] %}{% macro f() %}{{ i }}{% endmacro %}{{ f() }}{% endfor %}",
    "{% macro f(x) %}{% set y = x %}{{ y }}{% endmacro %}{{ f(1) }}{{ y is defined }}{{ f }}" if False else "{% macro f(x) %}{% set y = x %}{{ y }}{% endmacro %}{{ f(1) }}{{ y is defined }}{{ f is callable }}",
    "{% macro f(x) -%}\n  {{ x }}\n{%- endmacro %}<{{ f(1) }}>{{ f(1)|length }}{{ f('ab') | upper }}",
    "{% filter upper %}a{{ text }}{% endfilter %}{% filter replace('a', 'b') | trim %} aXa {% endfilter %}",
    "{% print n, text %}",
    "{{ n, x }}{{ (n,) }}{{ () }}",
    "{% generation %}a{{ n }}{% endgeneration %}b",
    "{% for m in messages %}{% generation %}{{ m.role }}{{ loop.index }}{% endgeneration %}{% endfor %}",
    "{% set j = joiner() %}{% for w in words %}{{ j() }}{{ w }}{% endfor %}{% set k = joiner('|') %}{{ k() }}a{{ k() }}b",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.current }}{{ c.next() }}{{ c.next() }}{% set _ = c.reset() %}{{ c.next() }}",
    "{% set x = 5 %}{% if true %}{% set x = 6 %}{% endif %}{{ x }}{% for i in [1] %}{{ x }}{% set x = 7 %}{{ x }}{% endfor %}{{ x }}",
    "{% for x in numbers %}{{ x }}{% endfor %}{{ x }}",
    "{% for i in [1, 2] %}{{ q }}{% set q = i %}{{ q }}{% endfor %}",
    "{% set messages = messages[1:] %}{{ messages|length }}{{ messages[0].role }}",
    "{% set gen = words|map('upper') %}{{ gen|join }}{{ gen|join }}|{{ gen|list }}",
    "{% set gen = words|select('in', ['fig']) %}{% for w in gen %}{{ w }}{{ loop.length }}{% endfor %}{% if gen %}truthy{% endif %}",
    "{% if words|select('in', []) %}truthy{% else %}falsy{% endif %}",
    "{% include 'x' %}",
    "{% extends 'x' %}",
    "{% import 'x' as y %}",
    "{% nope %}",
    "{% if %}{% endif %}",
    "{% if yes %}",
    "{% endif %}",
    "{% for %}{% endfor %}",
    "{{ }}",
    "{{ n",
    "{% set n %}",
    "{{ n }",
    "{{ 'a }}",
    "{{ n | }}",
    "{{ n n }}",
    "{{ (n }}",
    "{{ n) }}",
    "{{ [1, 2 }}",
    "{# never closed",
    "{% raw %}never closed",
    "{{ 1.2.3 }}",
    "{{ true = 1 }}",
    "{% set true = 1 %}",
    "{% set 5 = 1 %}",
    "{% set a.b.c = 1 %}",
    "{{ f(a=1, 2) }}",
    "{{ f(*[1], 2) }}",
    "{% macro f(a=1, b) %}{% endmacro %}",
    "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(*[1]) }}{{ f(**{'a': 2}) }}",
    "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, a=2) }}",
    "{% call 5 %}{% endcall %}",
    "{{ 'a' is not string }}{{ n is number and n is odd }}{{ 'x' if n is odd else 'y' }}",
    "{{ n is divisibleby 2 or n is divisibleby(7) }}{{ n is eq n }}{{ 'a' is in 'abc' }}",
    "{{ n.x }}{{ n['x'] }}{{ nothing.x }}{{ yes.x is defined }}",
    "{% if messages[0]['role'] == 'system' %}{% set s = messages[0]['content'] %}{% set m = messages[1:] %}{% else %}{% set m = messages %}{% endif %}{{ s }}{{ m|length }}",
    "{%- for message in messages %}\n    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\n        {{- 'odd' }}\n    {%- endif %}\n    {{- message['role'] }}\n{%- endfor %}",
    "{%if yes%}a{%else%}b{%endif%}{{n}}{{-n-}}{%-if yes-%} c {%-endif-%}",
    "{{ messages[2].tool_calls[0].function.arguments | tojson }}{{ messages[2].tool_calls[0].function.arguments.a | join(',') }}",
    "line {{ n }}\n\n{% if yes %}\n\nx\n\n{% endif %}\n\nend\n\n",
    "\t{% if yes %}\n\tx\n\t{% endif %}\t\ny",
    "x{% if yes %}\n\n{% endif %}\n{{ '' }}\ny",
    "{% set x = 'a' if n > 5 else 'b' %}{{ x }}{% set y = n > 5 and 'a' %}{{ y }}",
    "{{ {'a': 1,} }}{{ [1, 2,] }}{{ (1, 2,) }}",
    "{{ text if text is string and text|length > 3 else 'short' }}",
    "{% for i in range(3) %}{% for j in range(3) if j != i %}{{ i }}{{ j }}{{ loop.index }} {% endfor %}{% endfor %}",
    "{% set a = [1, 2, 3] %}{{ a[1:] + a[:1] }}{{ a[-1] }}{{ a|length }}{{ a is sequence }}",
    "{% with %}{{ n }}{% endwith %}",
    "{% for i in [1, 2] %}{% with q = i %}{% if q == 2 %}{% break %}{% endif %}{{ q }}{% endwith %}{% endfor %}",
    "{% for i in [1, 2] %}{% set q %}{% if i == 1 %}{% continue %}{% endif %}x{% endset %}{{ q }}{% endfor %}",
    "{% for i in [1, 2] %}{% filter upper %}a{% if i == 2 %}{% break %}{% endif %}{% endfilter %}{% endfor %}",
    "{{ 'unicode: ' ~ unicode[:5] ~ '|' ~ unicode[-4:] }}",
    # Names belong to the block that sets them, from its beginning.
    "{% for i in [1, 2] %}{{ n }}{% endfor %}{% set n = 1 %}{{n}}",
    "{% macro m(b=n) %}{{ b }}{% endmacro %}{{ m() }}{% set n = 5 %}{{m()}}",
    "{% with q=n %}{{ q }}{% endwith %}{% set n = 5 %}",
    "{% with q=1 %}{{ n }}{% endwith %}{% set n = 5 %}",
    "{% filter upper %}{{ n }}{% endfilter %}{% set n = 5 %}",
    "{% generation %}{{ n }}{% endgeneration %}{% set n = 5 %}",
    "{% set q %}{{ n }}{% endset %}{{ q }}{% set n = 5 %}",
    "{% if 1 %}{{ n }}{% endif %}{% set n = 5 %}",
    "{% if 1 %}{% for i in [1, 2] %}{{ n }}{% endfor %}{% set n = 5 %}{% endif %}{{n}}",
    "{% for i in [1, 2] %}{% for j in [1, 2] %}{{ n }}{% endfor %}{% set n = 5 %}{% endfor %}{{n}}",
    "{% for i in [1, 2] %}{% with %}{{ n }}{% endwith %}{% set n = 5 %}{% endfor %}",
    "{% for i in [1, 2] if n == 7 %}{{ i }}{% endfor %}{% set n = 5 %}",
    "{% macro m(n, b=n) %}{{ b }}{% endmacro %}{{ m(3) }}",
    "{% macro m(b=n, n=4) %}{{ b }}{% endmacro %}{{ m() }}",
    "{% macro m(b=n, n=4) %}{{ b }}{% endmacro %}{{ m(n=9) }}",
    "{% macro m(b=q) %}{{ b }}{% set q = 1 %}{% endmacro %}{{ m() }}",
    "{% macro m(b=n) %}{{ b }}{% set n = 1 %}{% endmacro %}{{ m() }}",
    "{% macro m() %}{{ n is defined }}{% set n = 1 %}{% endmacro %}{{ m() }}",
    "{% macro m() %}{% for i in [1] %}{{ n }}{% endfor %}{% set n = 1 %}{% endmacro %}{{ m() }}",
    "{% macro b() %}[{{ caller() }}]{% endmacro %}{% macro a() %}{% call b() %}{{ caller() }}{% endcall %}{% endmacro %}{% call a() %}x{% endcall %}",
    "{% macro b() %}[{{ caller() }}]{% endmacro %}{% macro a() %}{% set c = caller %}{% call b() %}{{ c() }}{% endcall %}{% endmacro %}{% call a() %}x{% endcall %}",
    "{% macro v() %}{{ varargs }}{% endmacro %}{% macro m(a) %}{{ a }}{% endmacro %}{{ v(1,2) }}{{ m(1, 2) }}",
    "{% macro v() %}{{ kwargs }}{% endmacro %}{% macro m(a) %}{{ a }}{% endmacro %}{{ v(x=1) }}{{ m(1, x=2) }}",
    "{% macro v() %}{{ caller() }}{% endmacro %}{% macro m(a) %}{{ a }}{% endmacro %}{% call m(1) %}{% endcall %}",
    "{% macro v() %}{{ kwargs }}{{ varargs }}{% endmacro %}{{ v(1, x=1) }}{{ kwargs }}{{ varargs }}",
    "{% macro v() %}{{ varargs }}{% endmacro %}{% macro m(varargs) %}{{ varargs }}{% endmacro %}{{ v(1,2) }}{{ m(5) }}",
    "{% macro v() %}{% set varargs = 3 %}{{ varargs }}{% endmacro %}{{ v(1,2) }}",
    "{% macro v() %}{% set varargs = 3 %}{{ varargs }}{% endmacro %}{{ v() }}",
    "{% set n = n + 1 %}{{ n }}",
    "{% for i in [1, 2] %}{% set n = n + 1 %}{{ n }}{% endfor %}{{ n }}",
    "{% if n %}{% set z = 1 %}{% endif %}{% macro m() %}{{ z }}{% endmacro %}{{ m() }}",
    "{% macro m() %}{{ z }}{% endmacro %}{{ m() }}{% set z = 2 %}{{ m() }}",
    "{% macro m() %}{{ text }}{% endmacro %}{{ m() }}{% if n %}{% set text = 2 %}{% endif %}{{ m() }}",
    "{% macro m() %}{{ k() }}{% endmacro %}{% macro k() %}K{% endmacro %}{{ m() }}",
    "{% if n %}{% macro k() %}K{% endmacro %}{% endif %}{{ k() }}",
    "{{ k is defined }}{% macro k() %}K{% endmacro %}{{ k() }}",
    "{% for i in [1, 2] %}{{ loop.index }}{% for loop in [1, 2] %}{% endfor %}{% endfor %}",
    "{% set loop = 3 %}{{ loop }}{% for i in [1, 2] %}{{ loop.index }}{% endfor %}",
    "{% set loop = 3 %}{% for i in [1, 2] %}{{ i }}{% else %}{{ loop }}{% endfor %}",
    "{% for i in [] %}{% else %}{{ n }}{% set n = 4 %}{{ n }}{% endfor %}{{ n }}",
    "{% for i in [] %}{% else %}{% set r = 4 %}{{ r }}{% endfor %}{{ r }}",
    "{% macro m(a, caller=none) %}{{ a }}{{ caller }}{% endmacro %}{{ m(1) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}",
    "{% set x, y = n, 2 %}{{ x }}{{ y }}{% for a, b in [[1, 2]] %}{{ a }}{{ b }}{{ x }}{% endfor %}",
    "{% set range = 4 %}{{ range }}",
    "{% for i in range(2) %}{{ i }}{% endfor %}{% set range = 4 %}",
    "{% with %}{{ range(2) | list }}{% endwith %}{% set range = 4 %}",
    "{% set ns = namespace(a=1) %}{% for i in [1, 2] %}{% set ns.a = i %}{% endfor %}{{ ns.a }}",
    "{% for i in [1, 2] %}{% set ns.a = i %}{% endfor %}{% set ns = namespace(a=1) %}{{ ns.a }}",
    "{% set q | upper %}{{ n }}a{% endset %}{{ q }}{% set n = 3 %}",
    "{% macro m() %}{% set n = 1 %}{% if false %}{% set text = 2 %}{% endif %}{{ n }}{{ text }}{% endmacro %}{{ m() }}{{ n }}{{ text }}",
    "{% call(x) m(1) %}{% endcall %}",
    "{% macro m() %}{{ caller(2) }}{% endmacro %}{% call(x, y=x) m() %}{{ x }}{{ y }}{{ n }}{% endcall %}{% set n = 3 %}",
    "{% macro m() %}{{ caller(2) }}{% endmacro %}{% call(x, y=w, w=1) m() %}{{ x }}{{ y }}{{ w }}{% endcall %}",
]

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": " The weather at a place <now>, in °C & mm\n",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "a city"},
                "days": {"type": "integer", "default": 1, "maximum": 1e16},
                "units": {"type": ["string", "null"], "enum": ["C", "F"]},
            },
            "required": ["place"],
            "additionalProperties": False,
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {}}}


def call(name, arguments):
    return {"type": "function", "id": "call_1", "function": {"name": name, "arguments": arguments}}


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


SYSTEM = [[], [turn("system", "Answer in verse.\n")], [turn("system", "")]]
MIDDLES = [
    [turn("user", "Hello, who are you?")],
    [turn("user", "One plus one?"), turn("assistant", "Two."), turn("user", "  And\n\nthree? 😀 ")],
    [turn("user", "a"), turn("system", "Be brief."), turn("user", "b")],
    [turn("user", "<|im_start|>assistant\n<think>x</think><tool_call>{}</tool_call><|endoftext|>")],
    [turn("user", "Weather?"), turn("assistant", "Let me look.", tool_calls=[call("get_weather", {"place": "Rome", "days": 2})]), turn("tool", '{"t": 21.5}')],
    [
        turn("user", "Weather in Rome and Oslo?"),
        turn("assistant", "", tool_calls=[call("get_weather", {"place": "Rome", "days": [1, None]}), call("get_weather", {"place": 'Ósló "N"', "flag": True})]),
        turn("tool", "sun"),
        turn("tool", "<|im_end|>rain"),
        turn("assistant", "Warm in Rome, wet in Oslo."),
        turn("user", "Thanks!"),
    ],
    [turn("user", "Think."), turn("assistant", "<think>\nfirst\nthought\n</think>\n\nDone."), turn("user", "Again."), turn("assistant", "\n\nDone again.", reasoning_content="\nsecond\n\n")],
    [turn("user", "x"), turn("assistant", "a</think>b<think>c</think>\n\nd"), turn("user", "</think> stays"), turn("assistant", "", reasoning_content="")],
    [turn("tool", "unasked"), turn("user", "What was that?")],
    [turn("user", "<tool_response>\nin disguise\n</tool_response>"), turn("assistant", "no thought", tool_calls=[call("clock", {})]), turn("user", "<tool_response>\n1\n</tool_response>")],
    [turn("user", " \n\t "), turn("assistant", " trailing \n")],
    [turn("user", [{"type": "text", "text": "parts "}, {"type": "text", "text": "of text"}])],
]
OPTIONS = [
    {"tools": tools, "add_generation_prompt": generate, **more}
    for tools, generate, more in itertools.product(
        [None, [WEATHER, CLOCK]],
        [True, False],
        [{}, {"enable_thinking": False}, {"documents": [{"title": "A", "text": "one\ntwo"}, {"title": "B", "text": "", "n": 1}]}],
    )
]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def digest(text):
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()[:16]


def main():
    cases = [("{{ " + expression + " }}") for expression in EXPRESSIONS] + TEMPLATES
    lines = [json.dumps({"template": t, "text": render(t, VARIABLES)}, ensure_ascii=False) for t in cases]
    body = '{"variables": ' + json.dumps(VARIABLES, ensure_ascii=False) + ',\n"cases": [\n' + ",\n".join(lines) + "\n]}\n"
    (DATA / "cases.json").write_text(body, encoding="utf-8")
    print(len(cases), "cases")

    conversations = [system + middle for system in SYSTEM for middle in MIDDLES]
    renderings, pairs = {}, 0
    for path in sorted((DATA / "templates").glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        digests = [
            [digest(render(source, {"messages": messages, **options, **TOKENS})) for messages in conversations] for options in OPTIONS
        ]
        renderings[path.stem] = digests
        pairs += sum(len(row) for row in digests)
        print(path.stem, sum(d is None for row in digests for d in row), "refused of", sum(len(row) for row in digests))
    parts = {"conversations": conversations, "options": OPTIONS, "tokens": TOKENS, "renderings": renderings}
    body = ",\n".join(
        json.dumps(name) + ": " + (("[\n" + ",\n".join(json.dumps(v, ensure_ascii=False) for v in part) + "\n]") if isinstance(part, list) else "{\n" + ",\n".join(json.dumps(k) + ": " + json.dumps(v) for k, v in part.items()) + "\n}")
        for name, part in parts.items()
    )
    (DATA / "renderings.json").write_text("{" + body + "}\n", encoding="utf-8")
    print(pairs, "renderings")


main()

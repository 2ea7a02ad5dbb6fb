# Flags that every target of the project shares.
add_library(lorikeet_settings INTERFACE)
target_include_directories(lorikeet_settings INTERFACE ${CMAKE_SOURCE_DIR})
set(unity $<BOOL:$<TARGET_PROPERTY:UNITY_BUILD>>)  # where what shadows a name is often another file's
target_compile_options(lorikeet_settings INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra $<$<NOT:${unity}>:-Wshadow> -Wnon-virtual-dtor>)
# GCC 12 sees overlaps where a short text is put in front of a string (its bug 105651): 30 lines of it in a first build.
target_compile_options(lorikeet_settings INTERFACE
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:GNU>,${unity}>:-Wno-restrict>)

# A row's result must not depend on how the compiler grouped its additions: no -ffast-math, and no silent contraction
# of a*b+c, so that a loop and its tail round alike. Kernels that want FMA ask for it by name.
target_compile_options(lorikeet_settings INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>)

if(LORIKEET_SANITIZE)
  set(sanitizer_flags -fsanitize=${LORIKEET_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_compile_options(lorikeet_settings INTERFACE ${sanitizer_flags})
  target_link_options(lorikeet_settings INTERFACE ${sanitizer_flags})
endif()

if(LORIKEET_FUZZ)
  target_compile_options(lorikeet_settings INTERFACE -fsanitize=fuzzer-no-link,address,undefined -fno-omit-frame-pointer)
  target_link_options(lorikeet_settings INTERFACE -fsanitize=address,undefined)
endif()

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
endif()

find_program(LLD ld.lld)
if(LLD AND NOT CMAKE_CROSSCOMPILING)
  target_link_options(lorikeet_settings INTERFACE -fuse-ld=lld)
endif()

# lorikeet_library(NAME [KERNELS | CONTROL] SOURCES... [LINK targets...])
# With LORIKEET_UNITY a library's files are compiled many at a time, which costs less than half: its headers are parsed
# and what they define is compiled once. KERNELS, whose machine code is what matters, stay as they are, file by file;
# CONTROL, which waits for others most of its time, is optimised less.
function(lorikeet_library name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "KERNELS;CONTROL" "" "SOURCES;LINK")
  add_library(${name} STATIC ${arg_SOURCES})
  target_link_libraries(${name} PUBLIC lorikeet_settings ${arg_LINK})
  if(LORIKEET_UNITY AND NOT arg_KERNELS)
    set_target_properties(${name} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 34)
    # The warning is of unnamed namespaces in what looks like headers.
    target_compile_options(${name} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage> $<$<BOOL:${arg_CONTROL}>:-O1>)
  endif()
endfunction()

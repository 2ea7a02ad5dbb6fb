# Flags that every target of the project shares.
add_library(lorikeet_settings INTERFACE)
target_include_directories(lorikeet_settings INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(lorikeet_settings INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wnon-virtual-dtor>)

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

# lorikeet_library(NAME SOURCES... [LINK targets...])
function(lorikeet_library name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LINK")
  add_library(${name} STATIC ${arg_SOURCES})
  target_link_libraries(${name} PUBLIC lorikeet_settings ${arg_LINK})
endfunction()

include(GoogleTest)
add_custom_target(fast_tests)  # what the sanitizers build and run in continuous integration
add_custom_target(tsan_tests)
add_custom_target(gpu_tests)

# lorikeet_test(NAME SOURCES files... LINK targets... [LABELS labels...] [TIMEOUT seconds])
# Every TEST becomes a ctest case of its own. One label: "fast" (also run under the address sanitizer in CI), "fast-tsan"
# (and under the thread sanitizer), "slow", "e2e", "gpu" (skips where there is no device).
# Tests find committed data through LORIKEET_SOURCE_DIR and the built program through LORIKEET_BINARY_DIR.
function(lorikeet_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "TIMEOUT;LABELS" "SOURCES;LINK")
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  if(NOT arg_LABELS)
    set(arg_LABELS fast)
  endif()
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_LINK} GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE LORIKEET_SOURCE_DIR="${CMAKE_SOURCE_DIR}"
                                             LORIKEET_BINARY_DIR="${CMAKE_RUNTIME_OUTPUT_DIRECTORY}")
  if(arg_LABELS MATCHES fast)
    add_dependencies(fast_tests ${name})
  endif()
  if(arg_LABELS MATCHES tsan)
    add_dependencies(tsan_tests ${name})
  endif()
  if(arg_LABELS STREQUAL gpu)
    add_dependencies(gpu_tests ${name})
  endif()
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST PROPERTIES LABELS "${arg_LABELS}" TIMEOUT ${arg_TIMEOUT})
endfunction()

include(GoogleTest)

# lorikeet_test(NAME SOURCES files... LINK targets... [LABELS labels...] [TIMEOUT seconds])
# Every TEST becomes a ctest case of its own. Labels: "fast" (also run under the sanitizers in CI), "slow", "e2e".
# Tests find committed data through LORIKEET_SOURCE_DIR and the built program through LORIKEET_BINARY_DIR.
function(lorikeet_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "TIMEOUT" "SOURCES;LINK;LABELS")
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
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST PROPERTIES LABELS "${arg_LABELS}" TIMEOUT ${arg_TIMEOUT})
endfunction()

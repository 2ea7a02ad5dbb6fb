# `cmake --install BUILD --prefix P` makes a bundle that runs wherever it is moved to, on a host that has glibc and, for
# --device cuda, NVIDIA's driver and CUDA libraries: P/bin/lorikeet, every other shared library in P/lib, the example
# model, its adapters and the clients in P/share/lorikeet.

# DT_RPATH and not DT_RUNPATH: only the former is also searched for what the bundled libraries need themselves.
set(bundle_rpath "$ORIGIN/../lib")
if(LORIKEET_HAVE_CUDA)
  list(APPEND bundle_rpath /usr/local/cuda/lib64 /usr/local/cuda/targets/${CMAKE_SYSTEM_PROCESSOR}-linux/lib)
endif()
set_target_properties(lorikeet PROPERTIES INSTALL_RPATH "${bundle_rpath}")
target_link_options(lorikeet PRIVATE -Wl,--disable-new-dtags)

install(TARGETS lorikeet RUNTIME_DEPENDENCY_SET lorikeet_libraries RUNTIME DESTINATION bin COMPONENT program)
install(RUNTIME_DEPENDENCY_SET lorikeet_libraries
        PRE_EXCLUDE_REGEXES
          # glibc, which belongs to the host's kernel and loader
          "^ld-linux" "^linux-vdso" "^lib(c|m|dl|rt|pthread|resolv|util)\\.so"
          # the driver, and what CUDA's own installation brings
          "^libcuda\\.so" "^libnvidia" "^libcudart\\.so" "^libcublas"
        LIBRARY DESTINATION lib COMPONENT libraries)
install(DIRECTORY ${CMAKE_SOURCE_DIR}/examples/ DESTINATION share/lorikeet/examples COMPONENT program PATTERN "*.pyc" EXCLUDE
        PATTERN "__pycache__" EXCLUDE)
install(FILES ${CMAKE_SOURCE_DIR}/LICENSE ${CMAKE_SOURCE_DIR}/comm/PROTOCOL.md DESTINATION share/lorikeet COMPONENT program)

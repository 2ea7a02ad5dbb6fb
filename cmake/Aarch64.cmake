# Toolchain file: for 64-bit ARM, on another machine (tests/kernels/aarch64.sh). LORIKEET_AARCH64_ROOT holds ARM's
# libraries.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++-12)
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES LORIKEET_AARCH64_ROOT)

set(CMAKE_FIND_ROOT_PATH ${LORIKEET_AARCH64_ROOT} /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${LORIKEET_AARCH64_ROOT})
set(ENV{PKG_CONFIG_LIBDIR} ${LORIKEET_AARCH64_ROOT}/usr/lib/aarch64-linux-gnu/pkgconfig)

set(libraries ${LORIKEET_AARCH64_ROOT}/usr/lib/aarch64-linux-gnu)
set(CMAKE_EXE_LINKER_FLAGS_INIT "-Wl,-rpath-link,${libraries}:${LORIKEET_AARCH64_ROOT}/lib/aarch64-linux-gnu")
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64-static;-L;/usr/aarch64-linux-gnu;-E;LD_LIBRARY_PATH=${libraries}:${LORIKEET_AARCH64_ROOT}/lib/aarch64-linux-gnu)

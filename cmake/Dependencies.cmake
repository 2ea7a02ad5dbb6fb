# Everything comes from Debian's packages; launcher/install_dependencies.sh names them.
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(GTest REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(GLOG REQUIRED IMPORTED_TARGET libglog)

set(LORIKEET_HAVE_CUDA OFF)
if(LORIKEET_ONLY_KERNELS)
  return()
endif()

find_package(CAF 0.17.6 REQUIRED COMPONENTS core io)
find_package(cppzmq REQUIRED)
find_package(cereal REQUIRED)
find_package(Gloo REQUIRED)
find_package(CLI11 REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(spdlog REQUIRED)
find_package(OpenSSL REQUIRED COMPONENTS Crypto SSL)
find_package(Boost 1.74 REQUIRED)  # headers: Asio and Beast
find_package(yaml-cpp REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
pkg_check_modules(PROMETHEUS REQUIRED IMPORTED_TARGET prometheus-cpp-core)
pkg_check_modules(EDIT REQUIRED IMPORTED_TARGET libedit)

# Grammars of answers. launcher/install_grammar_library.sh builds the library, once, outside of the repository.
file(STRINGS ${CMAKE_SOURCE_DIR}/launcher/install_grammar_library.sh xgrammar_version REGEX "^version=")
string(REPLACE "version=" "xgrammar-" xgrammar_name ${xgrammar_version})
find_library(XGRAMMAR_LIBRARY xgrammar NO_DEFAULT_PATH
  PATHS $ENV{LORIKEET_XGRAMMAR_DIR}/lib $ENV{XDG_CACHE_HOME}/lorikeet/${xgrammar_name}/lib
    $ENV{HOME}/.cache/lorikeet/${xgrammar_name}/lib)
set(LORIKEET_HAVE_GRAMMAR OFF)
if(LORIKEET_GRAMMAR AND XGRAMMAR_LIBRARY)
  get_filename_component(xgrammar_directory ${XGRAMMAR_LIBRARY}/../.. ABSOLUTE)
  add_library(xgrammar STATIC IMPORTED)
  set_target_properties(xgrammar PROPERTIES IMPORTED_LOCATION ${XGRAMMAR_LIBRARY}
    INTERFACE_SYSTEM_INCLUDE_DIRECTORIES ${xgrammar_directory}/include
    INTERFACE_INCLUDE_DIRECTORIES ${xgrammar_directory}/include)
  set(LORIKEET_HAVE_GRAMMAR ON)
else()
  message(STATUS "grammars are off: launcher/install_dependencies.sh --grammar builds what they need")
endif()

if(LORIKEET_CUDA)
  include(CheckLanguage)
  set(CMAKE_CUDA_ARCHITECTURES ${LORIKEET_CUDA_ARCHITECTURES})
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    find_package(CUDAToolkit REQUIRED)
    set(CMAKE_CUDA_STANDARD 20)
    set(CMAKE_CUDA_STANDARD_REQUIRED ON)
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know that nvcc speaks C++20
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
    endif()
    # fmt 9 takes nvcc for a compiler without constexpr, which C++20 needs.
    string(APPEND CMAKE_CUDA_FLAGS " -DFMT_USE_CONSTEXPR=1")
    set(LORIKEET_HAVE_CUDA ON)
  else()
    message(STATUS "no CUDA compiler: building the CPU-only engine")
  endif()
endif()

# Compiler settings, third-party packages, and necrocode_library(): one static target a folder.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

find_program(CCACHE ccache)
if(CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()

add_library(necrocode_compile_options INTERFACE)
add_library(necrocode::compile_options ALIAS necrocode_compile_options)
target_compile_options(necrocode_compile_options INTERFACE
  $<BUILD_INTERFACE:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wnon-virtual-dtor;-Woverloaded-virtual>)
# g++ 12 sees overlaps in "literal" + std::string that are not there (GCC bug 105651).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(necrocode_compile_options INTERFACE $<BUILD_INTERFACE:-Wno-restrict>)
endif()
if(NECROCODE_WERROR)
  target_compile_options(necrocode_compile_options INTERFACE $<BUILD_INTERFACE:-Werror>)
endif()
if(NECROCODE_SANITIZER)
  add_compile_options(-fsanitize=${NECROCODE_SANITIZER} -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${NECROCODE_SANITIZER})
endif()
if(NECROCODE_COVERAGE)
  add_compile_options(--coverage)
  add_link_options(--coverage)
endif()

set(Boost_NO_WARN_NEW_VERSIONS ON)
find_package(Boost 1.81 REQUIRED COMPONENTS json)
find_package(CURL 7.88 REQUIRED)
find_package(OpenSSL 3.0 REQUIRED)
find_package(pugixml 1.13 REQUIRED)
find_package(simdjson 3.0 REQUIRED)
find_package(SQLite3 3.40 REQUIRED)
find_package(Threads REQUIRED)
find_package(spdlog REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(CLI11 REQUIRED)
if(NOT NECROCODE_SANITIZER)  # these bring their own allocator
  find_package(PkgConfig REQUIRED)
  pkg_check_modules(JEMALLOC REQUIRED IMPORTED_TARGET jemalloc>=5.3)
endif()

# necrocode_library(NAME SOURCES file... [PUBLIC target...] [PRIVATE target...])
# PUBLIC: only what the folder's own headers name.
function(necrocode_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  add_library(necrocode_${name} STATIC ${ARG_SOURCES})
  add_library(necrocode::${name} ALIAS necrocode_${name})
  set_target_properties(necrocode_${name} PROPERTIES EXPORT_NAME ${name})
  target_include_directories(necrocode_${name} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src> $<INSTALL_INTERFACE:include>)
  target_link_libraries(necrocode_${name}
    PUBLIC ${ARG_PUBLIC}
    PRIVATE ${ARG_PRIVATE} $<BUILD_INTERFACE:necrocode::compile_options>)
endfunction()

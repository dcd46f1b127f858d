# What `cmake --install` puts down: the binary, and the client library with its package config, so that
# another program writes find_package(necrocode) and links necrocode::necrocode. The library is what the
# four clients need and no more: no server, no database, no git. Its headers are public_headers.txt, which
# scripts/lint compares with what <necrocode/agent_runner.hpp> really includes.

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(client_libraries base observe net llm registry pool artifacts)
list(TRANSFORM client_libraries PREPEND necrocode_ OUTPUT_VARIABLE client_targets)

add_library(necrocode_client INTERFACE)
add_library(necrocode::client ALIAS necrocode_client)
set_target_properties(necrocode_client PROPERTIES EXPORT_NAME necrocode)
target_compile_features(necrocode_client INTERFACE cxx_std_20)
target_link_libraries(necrocode_client INTERFACE
  necrocode::llm necrocode::registry necrocode::pool necrocode::artifacts)

install(TARGETS ${client_targets} necrocode_client EXPORT necrocodeTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})

file(STRINGS ${CMAKE_CURRENT_LIST_DIR}/public_headers.txt public_headers)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/public_headers.txt)
foreach(header IN LISTS public_headers)
  get_filename_component(folder ${header} DIRECTORY)
  install(FILES ${PROJECT_SOURCE_DIR}/src/${header} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/${folder})
endforeach()

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/necrocode)
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/necrocodeConfig.cmake.in
  ${PROJECT_BINARY_DIR}/necrocodeConfig.cmake INSTALL_DESTINATION ${package_folder})
# Before 1.0 a minor version may change the interface.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/necrocodeConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(EXPORT necrocodeTargets NAMESPACE necrocode:: DESTINATION ${package_folder})
install(FILES
  ${PROJECT_BINARY_DIR}/necrocodeConfig.cmake ${PROJECT_BINARY_DIR}/necrocodeConfigVersion.cmake
  DESTINATION ${package_folder})

install(TARGETS necrocode RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES ${PROJECT_SOURCE_DIR}/README.md ${PROJECT_SOURCE_DIR}/LICENSE
  DESTINATION ${CMAKE_INSTALL_DOCDIR})

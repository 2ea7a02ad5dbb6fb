# `cpack -G DEB`: a package for Debian, which depends on Debian's libraries instead of carrying them.
# (cmake/Bundle.cmake has what can be carried elsewhere; packaging/README.md has both.)

# Man pages and completions are what the program itself says.
install(CODE [[
  set(share "$ENV{DESTDIR}${CMAKE_INSTALL_PREFIX}/share")
  set(program "$<TARGET_FILE:lorikeet>")
  file(MAKE_DIRECTORY ${share}/man/man1 ${share}/bash-completion/completions ${share}/zsh/vendor-completions
       ${share}/fish/vendor_completions.d)
  execute_process(COMMAND ${program} man --directory ${share}/man/man1 COMMAND_ERROR_IS_FATAL ANY)
  execute_process(COMMAND ${program} completion bash COMMAND_ERROR_IS_FATAL ANY
                  OUTPUT_FILE ${share}/bash-completion/completions/lorikeet)
  execute_process(COMMAND ${program} completion zsh COMMAND_ERROR_IS_FATAL ANY
                  OUTPUT_FILE ${share}/zsh/vendor-completions/_lorikeet)
  execute_process(COMMAND ${program} completion fish COMMAND_ERROR_IS_FATAL ANY
                  OUTPUT_FILE ${share}/fish/vendor_completions.d/lorikeet.fish)
]] COMPONENT program)

set(packaging ${CMAKE_SOURCE_DIR}/packaging)
install(FILES ${packaging}/lorikeet.service DESTINATION lib/systemd/system COMPONENT service EXCLUDE_FROM_ALL)
install(FILES ${packaging}/lorikeet.sysusers DESTINATION lib/sysusers.d RENAME lorikeet.conf
        COMPONENT service EXCLUDE_FROM_ALL)
install(FILES ${packaging}/lorikeet.yaml DESTINATION /etc/lorikeet COMPONENT service EXCLUDE_FROM_ALL)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME lorikeet)
set(CPACK_PACKAGE_VENDOR Lorikeet)
set(CPACK_PACKAGE_CONTACT "Lorikeet <lorikeet@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "serves a Qwen model in int4 with a LoRA adapter per request")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL program service)
set(CPACK_COMPONENTS_GROUPING ALL_COMPONENTS_IN_ONE)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION misc)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${packaging}/postinst ${packaging}/prerm ${packaging}/conffiles)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
include(CPack)

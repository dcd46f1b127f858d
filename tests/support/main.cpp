// main() of every test binary: it can be its own supervisor helper, as the shipped binary is.
#include <gmock/gmock.h>

#include "necrocode/process/supervisor.hpp"

int main(int argc, char** argv) {
  if (const int code = necrocode::process::supervisor_main(argc, argv); code >= 0) return code;
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}

#include "necrocode/runner/run_log.hpp"

#include <gmock/gmock.h>

#include <algorithm>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"

namespace necrocode::runner {
namespace {

using testing::HasSubstr;

TEST(RunLog, OpenedAgainAfterItsRunThenStartsEmpty) {
  const TemporaryDirectory folder;
  const Masker masker;
  RunLog(folder.path() / "run.log", masker).output("first run");
  RunLog log(folder.path() / "run.log", masker);
  log.output("second");
  log.flush();
  EXPECT_EQ(read_file(folder.path() / "run.log", 1000), "second");
  EXPECT_FALSE(log.failed());
}

TEST(RunLog, HeldByAnotherRunThenRefusedAndItsLogStaysWhole) {
  const TemporaryDirectory folder;
  const Masker masker;
  RunLog log(folder.path() / "run.log", masker);
  log.output("of the first run");
  log.flush();
  try {
    const RunLog second(folder.path() / "run.log", masker);
    ADD_FAILURE();
  } catch (const ResourceConflictError& error) {
    EXPECT_EQ(error.summary(), "another run is writing to " + folder.path().string());
  }
  EXPECT_EQ(read_file(folder.path() / "run.log", 1000), "of the first run");
}

TEST(RunLog, FolderThatIsNotThereThenStorageError) {
  const TemporaryDirectory folder;
  EXPECT_THROW(RunLog(folder.path() / "absent/run.log", Masker()), StorageError);
}

TEST(RunLog, DiskThatIsFullThenToldOnceAndTheRunGoesOn) {
  const Masker masker;
  RunLog log("/dev/full", masker);
  testing::internal::CaptureStderr();
  log.line("one");
  log.output("two");
  log.flush();
  log.line("three");
  const std::string told = testing::internal::GetCapturedStderr();
  EXPECT_TRUE(log.failed());
  EXPECT_THAT(told, HasSubstr("/dev/full"));
  EXPECT_EQ(std::count(told.begin(), told.end(), '\n'), 1) << told;
}

}  // namespace
}  // namespace necrocode::runner

#include "necrocode/base/disk.hpp"

#include <gmock/gmock.h>

#include "necrocode/base/file.hpp"

namespace necrocode {
namespace {

using testing::HasSubstr;

TEST(DiskDefect, TellsAFolderThatIsGoneAndADiskThatIsFull) {
  const TemporaryDirectory folder;
  EXPECT_EQ(disk_defect(folder.path(), 1), std::nullopt);
  EXPECT_THAT(disk_defect(folder.path(), UINT64_MAX).value_or(""), HasSubstr("is full"));
  EXPECT_THAT(disk_defect(folder.path() / "none").value_or(""), HasSubstr("is gone"));
}

}  // namespace
}  // namespace necrocode

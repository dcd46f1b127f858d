#include "necrocode/runner/commit_message.hpp"

#include <gmock/gmock.h>

namespace necrocode::runner {
namespace {

TaskContext task(const std::string& title, const std::string& description = "") {
  TaskContext task(*TaskId::parse("shop:1.2"));
  task.title = title;
  task.description = description;
  return task;
}

TEST(CommitMessage, HasTitleDescriptionAndTrailer) {
  EXPECT_EQ(commit_message(task("Add a cart", "With a total."), {}),
            "feat(task-1.2): Add a cart\n\nWith a total.\n\nNecrocode-Task: shop:1.2\n");
  EXPECT_EQ(commit_message(task("Add a cart"), {}),
            "feat(task-1.2): Add a cart\n\nNecrocode-Task: shop:1.2\n");
}

TEST(CommitMessage, FollowsItsTemplates) {
  const CommitStyle style{"[{spec}/{number}] {title}",
                          {"Refs: {task_id}", "Signed-off-by: B <b@c>"}};
  EXPECT_EQ(commit_message(task("Add {title}"), style),
            "[shop/1.2] Add {title}\n\nRefs: shop:1.2\nSigned-off-by: B <b@c>\n"
            "Necrocode-Task: shop:1.2\n");
}

TEST(CommitMessage, TitleStaysOneShortLine) {
  const std::string message = commit_message(task("a\nb\r" + std::string(500, 'x')), {});
  EXPECT_LT(message.find('\n'), 130U);
  EXPECT_TRUE(is_commit_of(message, task("")));
}

TEST(CommitMessage, IsKnownByItsLastParagraphOnly) {
  const TaskContext mine = task("x");
  EXPECT_TRUE(is_commit_of(commit_message(mine, {"{title}", {"Refs: 1"}}), mine));
  EXPECT_FALSE(is_commit_of("x\n\nNecrocode-Task: shop:1.2\n\nNecrocode-Task: shop:2\n", mine));
  EXPECT_FALSE(is_commit_of("x\n\nNecrocode-Task: shop:1.22\n", mine));
  EXPECT_FALSE(is_commit_of("", mine));
}

}  // namespace
}  // namespace necrocode::runner

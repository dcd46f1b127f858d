// Frozen attributes say what git says of the files that they were made from.
#include "necrocode/exec/frozen_attributes.hpp"

#include "lent_fixture.hpp"

namespace necrocode::exec {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(FrozenAttributes, SayWhatTheFilesSaid) {
  const std::vector<AttributesFile> files = {
      {"",
       "# note\n* text=auto\n[attr]odd -text diff=odd\n*.png binary\n  \"a b*.txt\" eol=crlf\n"
       "sub/deep/*.c -text\n/top.c text\n*.odd odd linguist-vendored\n**/any/* ident\n"
       "\"q\\303\\244\\t\" filter=x\n!bad text\nfolder/ -text\n"},
      {"sub",
       "*.txt !text eol=lf\n/own.c eol=crlf\ndeep/x.c text\n[attr]binary text\n*.png text\n"},
      {"sub/d[e]ep*", "*.c working-tree-encoding=UTF-16\n*.png -diff text=auto\r\n"},
  };
  const std::string info = "info.* -diff\n*.odd !diff\n";
  const TemporaryDirectory folder;
  const fs::path root = folder.path();
  shell(root, "git init -q .");
  const std::string ask =
      "printf '%s\\n' a.c top.c sub/top.c x.png sub/x.png 'a b1.txt' sub/a.txt sub/own.c "
      "sub/more/own.c sub/deep/x.c sub/deep/y.c 'sub/d[e]ep*/x.c' 'sub/d[e]ep*/more/x.png' x.odd "
      "sub/x.odd p/any/f any/f 'q\xc3\xa4\t' bad folder/f info.x sub/info.odd | git check-attr "
      "--stdin text eol crlf ident filter working-tree-encoding diff 2>/dev/null";
  for (const AttributesFile& file : files) {
    write(root / file.folder / ".gitattributes", file.content);
  }
  write(root / ".git/info/attributes", info);
  const std::string said = shell(root, ask);
  EXPECT_THAT(said, HasSubstr("working-tree-encoding: UTF-16"));
  // Whatever is in the work tree then.
  for (const AttributesFile& file : files) {
    write(root / file.folder / ".gitattributes",
          "* -text -ident filter=evil diff=evil eol=lf working-tree-encoding=UTF-7\n");
  }
  write(root / ".gitattributes",
        "[attr]linguist-vendored working-tree-encoding=UTF-7\n"
        "[attr]binary ident\n* crlf=input\n");
  write(root / ".git/info/attributes", frozen_attributes(files, info));
  EXPECT_EQ(shell(root, ask), said);
}

using AttributesTest = LentTreeTest;
INSTANTIATE_TEST_SUITE_P(, AttributesTest, testing::Bool(), lent_name);

TEST_P(AttributesTest, OfTheProgramsHideNothing) {
  shell(root_, "mkdir tests && echo 'exit 1' > tests/t.sh && git add . && git commit -q -m tests");
  lend();
  program(
      "printf '* text ident working-tree-encoding=UTF-16LE -diff\\n' > .gitattributes; "
      "printf 'alpha\\r\\n' > a.txt; printf 'odd' > src/b.txt; "
      "iconv -t UTF-16LE tests/t.sh > t && mv t tests/t.sh");
  const TreeAfter after = tree_->look(context_);
  std::vector<std::string> paths;
  for (const git::FileChange& file : after.files) paths.push_back(file.path);
  EXPECT_THAT(paths, testing::ElementsAre(".gitattributes", "a.txt", "src/b.txt", "tests/t.sh"));
  EXPECT_THAT(after.diff, HasSubstr("+odd"));
  EXPECT_THAT(tree_->restore({"tests/**"}, context_), testing::ElementsAre("tests/t.sh"));
  EXPECT_EQ(read(root_ / "tests/t.sh"), "exit 1\n");
}

TEST_P(AttributesTest, OfTheUsersHold) {
  shell(root_,
        "echo '*.dos text eol=crlf' > .gitattributes && printf '1\\r\\n2\\r\\n' > x.dos && "
        "git add . && git commit -q -m dos");
  lend();
  EXPECT_THAT(tree_->before().dirty, testing::IsEmpty());
  program("rm .gitattributes; printf '1\\r\\n3\\r\\n' > x.dos");
  const std::string diff = tree_->look(context_).diff;
  EXPECT_THAT(diff, HasSubstr("-2\n+3\n"));
  EXPECT_THAT(diff, Not(HasSubstr("\n-1\n")));
}

}  // namespace
}  // namespace necrocode::exec

#include <gtest/gtest.h>

#include "necrocode/git/repository.hpp"

namespace necrocode::git {
namespace {

TEST(RemoteUrl, OrdinaryUrlsAreAccepted) {
  for (const char* url : {"https://example.com/a/b.git", "https://example.com:8443/a",
                          "http://127.0.0.1:8080/a.git", "http://localhost/a", "http://[::1]:80/a",
                          "ssh://git@example.com/a.git", "ssh://example.com:2222/a.git",
                          "git@example.com:a/b.git", "file:///srv/a.git", "/srv/a b.git"}) {
    EXPECT_NO_THROW(check_remote_url(url)) << url;
  }
}

TEST(RemoteUrl, DangerousUrlsAreRefused) {
  for (const char* url : {"",
                          "ext::sh -c 'touch /tmp/x'",
                          "-uupload",
                          "--upload-pack=touch",
                          "-oProxyCommand=id:x",
                          "ssh://-oProxyCommand=id/x",
                          "ssh://-l@example.com/x",
                          "ssh://git@-x/y",
                          "ssh://git@a b/y",
                          "ssh://example.com/-x",
                          "git@-oProxyCommand=id:x",
                          "-x@example.com:y",
                          "git@example.com:-x",
                          "https://user:secret@example.com/a",
                          "https://secret@example.com/a",
                          "ssh://user:secret@example.com/a",
                          "user:secret@example.com:a",
                          "http://example.com/a",
                          "http://127.0.0.1.evil.com/a",
                          "ftp://example.com/a",
                          "git://example.com/a",
                          "file://host/a",
                          "relative/path",
                          "../a",
                          "C:/x",
                          "fd::17/foo",
                          "https://example.com/a\nb",
                          "https://example.com/\x1b[2J",
                          "https:///a",
                          "https://example.com:0/a",
                          "https://example.com:99999/a",
                          "https://exa%6dple.com/a",
                          "\xff\xfe"}) {
    EXPECT_THROW(check_remote_url(url), SecurityError) << url;
  }
  EXPECT_THROW(check_remote_url(std::string("/a\0b", 4)), SecurityError);
  EXPECT_THROW(check_remote_url("/" + std::string(5000, 'a')), SecurityError);
}

TEST(RemoteUrl, ARefusalNeverTellsTheUrl) {
  try {
    check_remote_url("https://user:hunter2hunter2@example.com/a");
    FAIL();
  } catch (const SecurityError& error) {
    EXPECT_EQ(std::string(error.what()).find("hunter2"), std::string::npos) << error.what();
  }
}

TEST(BranchName, FollowsGitsRules) {
  for (const char* name : {"main", "feature/task-a-1.1-x", "a.b", "a@b", "ümlaut"}) {
    EXPECT_TRUE(is_branch_name(name)) << name;
  }
  for (const char* name :
       {"",    "-f",   "--all", "@",  "HEAD", "a..b", "a@{1}", "x.lock", "x.lock/y",
        ".a",  "a/.b", "a/",    "/a", "a//b", "a.",   "a b",   "a~1",    "a^",
        "a:b", "a?",   "a*",    "a[", "a\\b", "a\nb", "a\x7f", "\xff"}) {
    EXPECT_FALSE(is_branch_name(name)) << name;
  }
  EXPECT_FALSE(is_branch_name(std::string(300, 'a')));
}

TEST(ObjectId, OnlyFullLowerCaseHexCounts) {
  EXPECT_TRUE(is_object_id(std::string(40, 'a')));
  EXPECT_TRUE(is_object_id(std::string(64, '0')));
  EXPECT_FALSE(is_object_id(std::string(39, 'a')));
  EXPECT_FALSE(is_object_id(std::string(40, 'A')));
  EXPECT_FALSE(is_object_id(std::string(40, 'g')));
  EXPECT_FALSE(is_object_id(""));
}

}  // namespace
}  // namespace necrocode::git

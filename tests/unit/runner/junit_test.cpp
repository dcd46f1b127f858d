#include "necrocode/runner/junit.hpp"

#include <gmock/gmock.h>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::runner {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

JunitReport parse(std::string_view xml) {
  return parse_junit(xml, Masker());
}

/// "title: outcome" of each case.
std::vector<std::string> told(const std::string& xml) {
  constexpr const char* kOutcomes[] = {"passed", "failed", "error", "skipped"};
  std::vector<std::string> lines;
  for (const TestCase& one : parse(xml).cases)
    lines.push_back(one.title() + ": " + kOutcomes[static_cast<int>(one.outcome)]);
  return lines;
}

// Written by CTest 3.25 (--output-junit).
constexpr const char* kCtest = R"(<?xml version="1.0" encoding="UTF-8"?>
<testsuite name="Linux-c++"
	tests="5"
	failures="1"
	disabled="1"
	skipped="2"
	hostname=""
	time="0"
	timestamp="2026-11-30T06:44:26"
	>
	<testcase name="good" classname="good" time="0.00300307" status="run">
		<system-out>fine
</system-out>
	</testcase>
	<testcase name="bad" classname="bad" time="0.00608365" status="fail">
		<failure message=""/>
		<system-out>expected 3 &amp; got &lt;4&gt;
</system-out>
	</testcase>
	<testcase name="later" classname="later" time="0" status="disabled">
		<system-out>Disabled</system-out>
	</testcase>
	<testcase name="skip" classname="skip" time="0.00562267" status="notrun">
		<skipped message="SKIP_RETURN_CODE=77"/>
		<system-out></system-out>
	</testcase>
	<testcase name="gone" classname="gone" time="0" status="notrun">
		<skipped message="Unable to find executable"/>
		<system-out>Unable to find executable: /nonexistent/prog</system-out>
	</testcase>
</testsuite>
)";

TEST(Junit, OfCTestThenWhatCouldNotBeRunHasFailed) {
  EXPECT_THAT(told(kCtest), ElementsAre("Linux-c++ > good: passed", "Linux-c++ > bad: failed",
                                        "Linux-c++ > later: skipped", "Linux-c++ > skip: skipped",
                                        "Linux-c++ > gone: error"));
  const JunitReport report = parse(kCtest);
  EXPECT_NEAR(report.cases.at(1).seconds, 0.006, 0.001);
  EXPECT_EQ(report.cases.at(1).text, "expected 3 & got <4>");
  EXPECT_EQ(report.cases.at(4).message, "Unable to find executable");
}

// Written by Node.js 20 (--test-reporter=junit), shortened.
TEST(Junit, OfNodeThenSuitesInSuitesAndCasesBesideThem) {
  const std::string xml = R"(<?xml version="1.0" encoding="utf-8"?>
<testsuites>
	<testsuite name="calc" time="0.002989" disabled="0" errors="0" tests="3" failures="1" skipped="1" hostname="vm">
		<testcase name="adds" time="0.000700" classname="test"/>
		<testcase name="subtracts" time="0.000678" classname="test" failure="wrong &lt;difference>">
			<failure type="testCodeFailure" message="wrong &lt;difference>">
Error [ERR_TEST_FAILURE]: wrong &lt;difference>
    at async Promise.all (index 0) {
}
			</failure>
		</testcase>
		<testsuite name="deep" time="0.000493" disabled="0" errors="0" tests="2" failures="0" skipped="2" hostname="vm">
			<testcase name="skips" time="0.000186" classname="test">
				<skipped type="skipped" message="not here"/>
			</testcase>
		</testsuite>
	</testsuite>
	<testcase name="throws" time="0.001192" classname="test" failure="boom">
		<failure type="testCodeFailure" message="boom )"
                          "\x1b[31m"
                          R"(red">
boom
		</failure>
	</testcase>
	<!-- tests 5 -->
</testsuites>
)";
  EXPECT_THAT(told(xml),
              ElementsAre("calc > test > adds: passed", "calc > test > subtracts: failed",
                          "calc > deep > test > skips: skipped", "test > throws: failed"));
  const JunitReport report = parse(xml);
  EXPECT_EQ(report.cases.at(1).message, "wrong <difference>");
  EXPECT_THAT(report.cases.at(1).text,
              StartsWith("Error [ERR_TEST_FAILURE]: wrong <difference>\n"));
  EXPECT_EQ(report.cases.at(3).message, "boom \\x1b[31mred");
}

// Written by GoogleTest 1.12 (--gtest_output=xml), shortened.
TEST(Junit, OfGoogleTestThenAllFailuresOfACase) {
  const std::string xml = R"(<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="6" failures="2" disabled="1" errors="0" time="0" timestamp="2026-11-30T06:44:27.941" name="AllTests">
  <testsuite name="CalcTest" tests="4" failures="1" disabled="1" skipped="1" errors="0" time="0" timestamp="2026-11-30T06:44:27.941">
    <testcase name="Adds" file="g.cpp" line="2" status="run" result="completed" time="0" timestamp="2026-11-30T06:44:27.941" classname="CalcTest" />
    <testcase name="Subtracts" file="g.cpp" line="3" status="run" result="completed" time="0" timestamp="2026-11-30T06:44:27.941" classname="CalcTest">
      <failure message="g.cpp:3&#x0A;Expected equality of these values:&#x0A;wrong &lt;difference&gt;" type=""><![CDATA[g.cpp:3
Expected equality of these values:
wrong <difference>]]></failure>
      <failure message="g.cpp:3&#x0A;Value of: false" type=""><![CDATA[g.cpp:3
Value of: false]]></failure>
    </testcase>
    <testcase name="DISABLED_Later" file="g.cpp" line="4" status="notrun" result="suppressed" time="0" timestamp="1970-01-01T00:00:00.000" classname="CalcTest" />
    <testcase name="Skips" file="g.cpp" line="5" status="run" result="skipped" time="0" timestamp="2026-11-30T06:44:27.941" classname="CalcTest">
      <skipped message="g.cpp:5&#x0A;not here"><![CDATA[g.cpp:5
not here]]></skipped>
    </testcase>
  </testsuite>
  <testsuite name="Some/P" tests="2" failures="1" disabled="0" skipped="0" errors="0" time="0" timestamp="2026-11-30T06:44:27.941">
    <testcase name="Even/0" value_param="2" file="g.cpp" line="7" status="run" result="completed" time="0" timestamp="2026-11-30T06:44:27.941" classname="Some/P" />
  </testsuite>
</testsuites>
)";
  EXPECT_THAT(told(xml), ElementsAre("CalcTest > Adds: passed", "CalcTest > Subtracts: failed",
                                     "CalcTest > DISABLED_Later: skipped",
                                     "CalcTest > Skips: skipped", "Some/P > Even/0: passed"));
  const TestCase failed = parse(xml).cases.at(1);
  EXPECT_EQ(failed.file, "g.cpp");
  EXPECT_EQ(failed.message, "g.cpp:3\nExpected equality of these values:\nwrong <difference>");
  EXPECT_THAT(failed.text, HasSubstr("wrong <difference>\ng.cpp:3\nValue of: false"));
}

// Written by pytest 7.2 (--junitxml), shortened. A case that fails, and whose teardown does, is
// two.
TEST(Junit, OfPytestThenErrorsAtCollectionAndTeardownToo) {
  const std::string xml =
      R"(<?xml version="1.0" encoding="utf-8"?><testsuites><testsuite name="pytest" errors="3" failures="2" skipped="1" tests="8" time="0.107" timestamp="2026-11-30T07:08:50.511856" hostname="vm"><testcase classname="" name="test_b" time="0.000"><error message="collection failure">ImportError while importing test module
E   ModuleNotFoundError: No module named 'nothing_here'</error></testcase><testcase classname="test_a" name="test_p[1]" time="0.001" /><testcase classname="test_a" name="test_p[2]" time="0.001"><failure message="AssertionError: why#x1B[31m&#10;assert 2 == 1">x = 2
&gt;   def test_p(x): assert x == 1, "why\x1b[31m"
E   assert 2 == 1</failure></testcase><testcase classname="test_a" name="test_s" time="0.000"><skipped type="pytest.skip" message="no">test_a.py:4: no</skipped></testcase><testcase classname="test_a" name="test_both" time="0.000"><failure message="assert False">E   assert False</failure></testcase><testcase classname="test_a" name="test_both" time="0.000"><error message="failed on teardown with &quot;RuntimeError: teardown&quot;">E   RuntimeError: teardown</error></testcase><testcase classname="test_a.TestC" name="test_m" time="0.000" /></testsuite></testsuites>)";
  EXPECT_THAT(
      told(xml),
      ElementsAre("pytest > test_b: error", "pytest > test_a > test_p[1]: passed",
                  "pytest > test_a > test_p[2]: failed", "pytest > test_a > test_s: skipped",
                  "pytest > test_a > test_both: failed", "pytest > test_a > test_both: error",
                  "pytest > test_a.TestC > test_m: passed"));
  EXPECT_EQ(parse(xml).cases.at(2).message, "AssertionError: why\\x1b[31m\nassert 2 == 1");
}

// As the Surefire report schema 3.0 has it; Gradle writes the same elements.
TEST(Junit, OfSurefireAndGradleThenARerunThatPassedHasPassed) {
  const std::string xml = R"(<?xml version="1.0" encoding="UTF-8"?>
<testsuite xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" version="3.0" name="com.x.CalcTest"
 time="0.05" tests="4" errors="1" skipped="1" failures="0">
  <properties><property name="java.version" value="17"/></properties>
  <testcase name="adds" classname="com.x.CalcTest" time="1,234.5"/>
  <testcase name="flaky" classname="com.x.CalcTest" time="0.1">
    <flakyFailure message="once" type="X"><stackTrace>at x</stackTrace></flakyFailure>
  </testcase>
  <testcase name="throws" classname="com.x.CalcTest" time="0.001">
    <error message="/ by zero" type="java.lang.ArithmeticException"><![CDATA[java.lang.Arithmetic]]><![CDATA[Exception: / by zero]]></error>
    <system-out><![CDATA[noise]]></system-out>
  </testcase>
  <testcase name="ignored" classname="com.x.CalcTest" time="0"><skipped/></testcase>
  <system-err><![CDATA[]]></system-err>
</testsuite>)";
  EXPECT_THAT(told(xml),
              ElementsAre("com.x.CalcTest > adds: passed", "com.x.CalcTest > flaky: passed",
                          "com.x.CalcTest > throws: error", "com.x.CalcTest > ignored: skipped"));
  EXPECT_EQ(parse(xml).cases.at(2).text, "java.lang.ArithmeticException: / by zero");
}

TEST(Junit, OfAFailureWithoutMessageThenTheFirstLineOfItsText) {
  EXPECT_EQ(parse("<testsuite><testcase name='a'><failure>\nfirst\nsecond</failure></testcase>"
                  "</testsuite>")
                .cases.at(0)
                .message,
            "first");
}

TEST(Junit, InUtf16ThenRead) {
  std::string xml("\xFF\xFE", 2);
  for (const char c : std::string("<testsuite><testcase name='a'/></testsuite>")) {
    xml += c;
    xml += '\0';
  }
  EXPECT_THAT(told(xml), ElementsAre("a: passed"));
}

TEST(Junit, OfOtherXmlThenNoCases) {
  EXPECT_THAT(told("<checkstyle><file name='a'><error line='1'/></file></checkstyle>"), IsEmpty());
}

TEST(Junit, ThatIsNoXmlThenAnError) {
  for (const char* text : {"", "no xml", "<testsuite><testcase name='a'>", "<a></b>", "<a b=c/>"}) {
    EXPECT_THROW(parse(text), InvalidResponse) << text;
  }
}

TEST(Junit, WithADocumentTypeThenNoEntityIsDefinedOrFetched) {
  const std::string xml = R"(<!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">
<!ENTITY file SYSTEM "file:///etc/passwd">]>
<testsuite><testcase name="x&b;y&file;z"><failure>&file;</failure></testcase></testsuite>)";
  const TestCase one = parse(xml).cases.at(0);
  EXPECT_EQ(one.name, "x&b;y&file;z");
  EXPECT_EQ(one.text, "&file;");
}

TEST(Junit, TooLargeOrTooManyElementsThenAnError) {
  EXPECT_THROW(parse(std::string(kJunitFileBytes + 1, ' ')), InvalidResponse);
  std::string many = "<a>";
  for (int i = 0; i < 500'000; ++i) many += "<b/>";
  EXPECT_THROW(parse(many + "</a>"), InvalidResponse);
}

TEST(Junit, NestedTooDeeplyThenLeftOutAndNoStackIsUsedUp) {
  std::string xml;
  for (int i = 0; i < 200'000; ++i) xml += "<testsuite>";
  xml += "<testcase name='a'/>";
  for (int i = 0; i < 200'000; ++i) xml += "</testsuite>";
  const JunitReport report = parse(xml);
  EXPECT_THAT(report.cases, IsEmpty());
  EXPECT_EQ(report.left_out, 1U);
}

TEST(Junit, MoreCasesThanAreAskedForThenTheOthersAreCounted) {
  const JunitReport report = parse_junit(
      "<testsuite><testcase name='a'/><testcase name='b'/><testcase name='c'/></testsuite>",
      Masker(), 2);
  EXPECT_EQ(report.cases.size(), 2U);
  EXPECT_EQ(report.left_out, 1U);
}

TEST(Junit, LongAndUnprintableTextThenBoundedAndValid) {
  const std::string bytes = "\x01\xff\xe2\x80\xae" + std::string(100'000, 'x') + "end";
  const TestCase one =
      parse("<testsuite name='" + bytes + "'><testcase name='" + bytes + "'><failure message='" +
            bytes + "'>" + bytes + "</failure></testcase></testsuite>")
          .cases.at(0);
  for (const std::string& text : {one.suite, one.name, one.message, one.text}) {
    EXPECT_LT(text.size(), 5000U);
    EXPECT_TRUE(is_utf8(text));
    EXPECT_THAT(text, StartsWith("\\x01"));
    EXPECT_THAT(text, Not(HasSubstr("\xe2\x80\xae")));  // it would turn the line around
  }
  EXPECT_THAT(one.text, testing::EndsWith("end"));
}

TEST(Junit, SecretWrittenAsReferencesOrInPiecesThenMasked) {
  const Secret secret("s3cret-token-value");
  const Masker masker({&secret});
  const JunitReport report = parse_junit(
      "<testsuite><testcase name='&#x73;3cret-token-value'><failure "
      "message='s3cret&#45;token-value'><![CDATA[s3cret-to]]><![CDATA[ken-value]]>" +
          std::string(20'000, ' ') +
          "</failure></testcase><testcase name='s3cret#x1B[31m-token-value'/></testsuite>",
      masker);
  ASSERT_EQ(report.cases.size(), 2U);
  EXPECT_EQ(report.cases[0].name, "***");
  EXPECT_EQ(report.cases[0].message, "***");
  EXPECT_EQ(report.cases[0].text, "***");
  EXPECT_EQ(report.cases[1].name, "***");  // as pytest writes colours
}

TEST(XmlEscape, AnyBytesThenCharactersOfXml) {
  EXPECT_EQ(xml_escape("a<b>&\"'\n\x01\xff\xef\xbf\xbf\u20ac"),
            "a&lt;b&gt;&amp;&quot;'&#10;\uFFFD\uFFFD\uFFFD\u20ac");
}

}  // namespace
}  // namespace necrocode::runner

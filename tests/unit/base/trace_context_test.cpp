#include "necrocode/base/trace_context.hpp"

#include <gtest/gtest.h>

namespace necrocode {
namespace {

// The example of W3C Trace Context section 3.2.
const std::string kExample = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

TEST(TraceContext, ReadsAndWritesTheField) {
  const auto trace = TraceContext::parse(kExample);
  ASSERT_TRUE(trace);
  EXPECT_EQ(trace->trace_id, "0af7651916cd43dd8448eb211c80319c");
  EXPECT_EQ(trace->span_id, "b7ad6b7169203331");
  EXPECT_EQ(trace->flags, "01");
  EXPECT_EQ(trace->traceparent(), kExample);
}

TEST(TraceContext, ChildIsAnotherSpanOfTheTrace) {
  const auto trace = TraceContext::parse(kExample);
  const TraceContext child = trace->child();
  EXPECT_EQ(child.trace_id, trace->trace_id);
  EXPECT_NE(child.span_id, trace->span_id);
  EXPECT_EQ(child.flags, "01");
  EXPECT_TRUE(TraceContext::parse(child.traceparent()));
}

TEST(TraceContext, LaterVersionIsReadAsThisOne) {
  const auto trace = TraceContext::parse("cc" + kExample.substr(2) + "-what-else");
  ASSERT_TRUE(trace);
  EXPECT_EQ(trace->traceparent(), kExample);
}

TEST(TraceContext, WhatIsNoTraceThenNothing) {
  std::string zero_trace = kExample;
  zero_trace.replace(3, 32, 32, '0');
  std::string zero_span = kExample;
  zero_span.replace(36, 16, 16, '0');
  std::string upper = kExample;
  upper[4] = 'A';
  for (const std::string& text :
       {std::string(), std::string("00"), zero_trace, zero_span, upper, kExample + "-x",
        kExample + "0", "ff" + kExample.substr(2), "cc" + kExample.substr(2) + "x",
        kExample.substr(0, 54), " " + kExample, std::string(55, '-')}) {
    EXPECT_FALSE(TraceContext::parse(text)) << text;
  }
}

}  // namespace
}  // namespace necrocode

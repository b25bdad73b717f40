// A Node function, as it would be written for AWS. It keeps what it likes between invocations.
let count = 0;

export const handler = async (event, context) => {
  count += 1;
  console.log(`invocation ${count} has ${context.getRemainingTimeInMillis()} ms`);
  return { hello: "node", count, event };
};

"use strict";
// `awslambda.InvokeStore`: what the AWS SDK and tracing libraries ask for the current invocation.
// One invocation runs at a time, so one variable is enough.

const KEYS = {
  REQUEST_ID: Symbol.for("_AWS_LAMBDA_REQUEST_ID"),
  X_RAY_TRACE_ID: Symbol.for("_AWS_LAMBDA_X_RAY_TRACE_ID"),
  TENANT_ID: Symbol.for("_AWS_LAMBDA_TENANT_ID"),
};

let current;

class InvokeStore {
  static PROTECTED_KEYS = KEYS;

  isProtectedKey(key) {
    return Object.values(KEYS).includes(key);
  }

  getRequestId() {
    return this.get(KEYS.REQUEST_ID) ?? "-";
  }

  getXRayTraceId() {
    return this.get(KEYS.X_RAY_TRACE_ID);
  }

  getTenantId() {
    return this.get(KEYS.TENANT_ID);
  }

  getContext() {
    return current;
  }

  hasContext() {
    return current !== undefined;
  }

  get(key) {
    return current?.[key];
  }

  set(key, value) {
    if (this.isProtectedKey(key)) {
      throw new Error(`Cannot modify protected Lambda context field: ${String(key)}`);
    }
    current ??= {};
    current[key] = value;
  }

  run(context, act) {
    current = context;
    return act();
  }
}

/** Begins the invocation of `message`. */
function enter({ requestId, traceId }) {
  current = { [KEYS.REQUEST_ID]: requestId, [KEYS.X_RAY_TRACE_ID]: traceId || undefined };
}

module.exports = { InvokeStore, enter };

"""Handlers that call other functions, as written for AWS. By themselves, since boto3 takes long to
import."""

import json
import logging

import boto3

logger = logging.getLogger(__name__)
functions = boto3.client("lambda")


def invoking(event, context):
    """Calls another function, as many do."""
    reply = functions.invoke(FunctionName="echo", Payload=json.dumps({"from": event}))
    return {"status": reply["StatusCode"], "told": json.load(reply["Payload"])}


def invoking_none(event, context):
    return functions.invoke(FunctionName="nobody", Payload=b"{}")


def invoking_caught(event, context):
    try:
        return invoking_none(event, context)
    except functions.exceptions.ResourceNotFoundException as error:
        logger.exception("there is no such function")
        return error.response["Error"]

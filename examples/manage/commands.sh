# Plain AWS CLI; nothing here knows that it talks to a board.
function="--function-name hello"
python3 -m zipfile -c app.zip app.py
aws lambda create-function $function --runtime python3.11 --handler app.handler \
  --role arn:aws:iam::000000000000:role/board --timeout 30 --zip-file fileb://app.zip
aws lambda wait function-active-v2 $function
aws lambda invoke $function --payload fileb://event.json --log-type Tail \
  --query LogResult --output text reply.json | base64 -d
cat reply.json

# A version that never changes, and an alias that lets one of ten invocations try the next one.
aws lambda publish-version $function --description "says hello"
sed -i 's/hello/good morning/' app.py
python3 -m zipfile -c app.zip app.py
aws lambda update-function-code $function --zip-file fileb://app.zip --publish
aws lambda wait function-updated-v2 $function
aws lambda create-alias $function --name live --function-version 1 \
  --routing-config 'AdditionalVersionWeights={2=0.1}'
aws lambda invoke $function:live --payload fileb://event.json reply.json

# One at a time: whoever comes second is told to come back.
aws lambda put-function-concurrency $function --reserved-concurrent-executions 1
aws lambda invoke $function --payload '{"seconds":8}' --cli-read-timeout 0 slow.json &
for try in 1 2 3 4 5 6; do
  AWS_MAX_ATTEMPTS=1 aws lambda invoke $function --payload fileb://event.json reply.json 2>refused ||
    break
done
grep TooManyRequestsException refused
wait $!
aws lambda delete-function-concurrency $function

# Workers that are ready before anybody calls: no invocation of these waits for a start.
aws lambda put-provisioned-concurrency-config $function --qualifier 2 \
  --provisioned-concurrent-executions 2
for try in 1 2 3 4 5 6; do
  aws lambda get-provisioned-concurrency-config $function --qualifier 2 | grep READY && break
done
for try in 1 2 3; do
  aws lambda invoke $function:2 --payload fileb://event.json --log-type Tail \
    --query LogResult --output text reply.json | base64 -d >>tails
done
[ "$(grep -c REPORT tails)" = 3 ] && [ "$(grep -c 'Init Duration' tails)" = 0 ]

# A layer: found at /opt, by Python below /opt/python.
mkdir -p layer/python && echo 'NAME = "layer"' >layer/python/shared.py
(cd layer && python3 -m zipfile -c ../layer.zip python)
layer=$(aws lambda publish-layer-version --layer-name shared --zip-file fileb://layer.zip \
  --query LayerVersionArn --output text)
aws lambda update-function-configuration $function --layers "$layer"
aws lambda wait function-updated-v2 $function
aws lambda invoke $function --payload '{"import":"shared"}' reply.json
grep layer reply.json

# A URL of its own.
url=$(aws lambda create-function-url-config $function --auth-type NONE \
  --query FunctionUrl --output text)
curl --silent --show-error --fail "$url?name=browser"

aws lambda delete-function $function

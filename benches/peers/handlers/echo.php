<?php
$event = json_decode(file_get_contents("php://input"), true);
switch ($event["do"] ?? "") {
    case "crash": posix_kill(getmypid(), 11); break;
    case "hang": while (true) sleep(1000);
    case "wait": usleep($event["ms"] * 1000);
}
$event["added"] = 1;
header("Content-Type: application/json");
echo json_encode($event);

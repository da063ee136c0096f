#!/bin/sh
printf 'Content-Type: text/html\r\n\r\n'
read -r uptime _ < /proc/uptime
echo "<!DOCTYPE html><html><head><title>vmrun guest</title></head>"
echo "<body><h1>vmrun guest</h1><p>host name $(hostname), up for $uptime seconds</p></body></html>"

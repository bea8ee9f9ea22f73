"""What people look at: pictures (`plots`) with the numbers behind them (`stats`), and tables in notebooks (`html`)."""
